"""Cohorts: the clients that a round asks, each a function of (seed, round)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedlt.data.arrays import IntArray
from fedlt.rng import numpy_generator


def drawn_uniformly(seed: int, round_: int, node_ids: Sequence[int], size: int) -> list[int]:
    """Return ``size`` clients drawn without replacement, sorted; all of them if there are fewer."""
    generator = numpy_generator(seed, "cohort", round_)
    chosen = generator.choice(len(node_ids), size=min(size, len(node_ids)), replace=False)
    return [node_ids[position] for position in sorted(chosen.tolist())]


def drawn_one_by_one(seed: int, round_: int, node_ids: Sequence[int], rate: float) -> list[int]:
    """Return the clients of Poisson sampling, each drawn by itself with one probability; sorted.

    The number of clients varies, and may be 0.
    """
    drawn = numpy_generator(seed, "poisson cohort", round_).random(len(node_ids)) < rate
    return [node_ids[position] for position in np.flatnonzero(drawn).tolist()]


def drawn_by_size(
    seed: int, round_: int, node_ids: Sequence[int], sizes: IntArray, draws: int
) -> list[int]:
    """Return clients drawn with replacement, client k with probability n_k / n, sorted.

    With equal weights of all draws, the mean of the clients' models is then on average the mean of
    all clients' models weighted by n_k: Li et al., On the convergence of FedAvg on non-IID data,
    ICLR 2020, https://arxiv.org/abs/1907.02189, scheme I, which is the sampling of FedProx (Li et
    al., MLSys 2020, https://arxiv.org/abs/1812.06127, algorithm 2).

    Args:
        seed: Of the run.
        round_: The round.
        node_ids: The clients to draw from.
        sizes: (K,) n_k, images of every client of the population.
        draws: Number of draws.
    """
    listed = np.asarray(node_ids)
    images = sizes[listed].astype(np.float64)
    generator = numpy_generator(seed, "cohort by size", round_)
    chosen = generator.choice(listed, size=draws, replace=True, p=images / images.sum())
    return sorted(chosen.tolist())
