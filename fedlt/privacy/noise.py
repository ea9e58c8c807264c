"""Gaussian noise that depends on (seed, purpose, round, client) alone: the same on every engine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from fedlt.rng import numpy_generator
from fedlt.update import Tensors


def gaussian(
    like: Mapping[str, torch.Tensor], names: Iterable[str], deviation: float, *key: int, seed: int
) -> Tensors:
    """Return independent normal numbers for every entry, drawn in float64 and rounded to float32.

    Args:
        like: Tensors whose shapes count.
        names: Names of the tensors to draw, in this order.
        deviation: Standard deviation.
        key: Integers that tell draws apart: the round; the client, if clients add noise.
        seed: Of the run.
    """
    draw = numpy_generator(seed, "dp noise", *key)
    return {
        name: torch.from_numpy(draw.standard_normal(tuple(like[name].shape)) * deviation).float()
        for name in names
    }


def counted(value: float, deviation: float, *key: int, seed: int) -> float:
    """Return a count with normal noise, drawn apart from that on the update."""
    return value + deviation * float(numpy_generator(seed, "dp count", *key).standard_normal())
