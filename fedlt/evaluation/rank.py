"""Diagnostics: number of directions over which features spread (``docs/metrics.md``)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fedlt.evaluation.generic import Metric

DIRECTIONS = (1, 5, 10)  # numbers d of principal directions
_ROUNDING = 1e-6  # relative rounding error of single precision


def variance_shares(features: Tensor, directions: Sequence[int] = DIRECTIONS) -> list[Metric]:
    """Return the share of the variance of features in their first d principal directions.

    The share is the sum of the d largest eigenvalues of the features' covariance, divided by the
    sum of all eigenvalues. Features of rank r have the share 1 for every d >= r.

    Args:
        features: (N, D).
        directions: The numbers d.

    Returns:
        A share in [0, 1] for each d; None if all rows are equal up to rounding, or not finite.
    """
    rows = features.double()
    centred = rows - rows.mean(dim=0)
    wide = len(rows) < rows.shape[1]
    products = centred @ centred.T if wide else centred.T @ centred  # the smaller of the two
    total = products.trace()
    if not bool(total > _ROUNDING**2 * rows.square().sum()):  # False for NaN, too
        return [None for _ in directions]
    if not bool(torch.isfinite(products).all()):
        return [None for _ in directions]
    values = torch.linalg.eigvalsh(products).clamp_min(0).flip(0)  # falling
    reached = values.cumsum(dim=0) / values.sum()
    return [float(reached[min(d, len(reached)) - 1]) for d in directions]


def rank_metrics(features: Tensor, streams: Sequence[str]) -> dict[str, Metric]:
    """Return the metrics ``block_<b>/<stream>/variance_<d>``, with blocks counted from 1.

    Args:
        features: (N, L, S, D) after each of L blocks.
        streams: Names of the S streams; (): a single stream, called ``features``.
    """
    names = streams or ("features",)
    return {
        f"block_{block + 1}/{name}/variance_{d}": share
        for block in range(features.shape[1])
        for stream, name in enumerate(names)
        for d, share in zip(DIRECTIONS, variance_shares(features[:, block, stream]), strict=True)
    }
