"""Neural collapse of features, and the geometry of class vectors (``docs/metrics.md``).

NC1 to NC4 follow Papyan, Han and Donoho, "Prevalence of neural collapse during the terminal phase
of deep learning training", PNAS 2020, https://arxiv.org/abs/2008.08186. All classes have the same
weight, so that the largest class of a long-tailed set does not dominate. For NC3 the class vectors
are centred too, since adding one vector to all class vectors changes no prediction.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fedlt.data.shots import ShotGroups
from fedlt.evaluation.generic import Metric, mean

_ROUNDING = 1e-6  # relative rounding error of single precision


def neural_collapse(
    features: Tensor, labels: Tensor, *, weight: Tensor | None, predicted: Tensor | None
) -> dict[str, Metric]:
    """Return ``nc1``, ``nc2_norm``, ``nc2_angle``, ``nc3`` and ``nc4`` over the classes present.

    With mu_c the mean feature of class c, and m_c = mu_c - mean of all mu_c, over the C classes
    that have an image:

        nc1        tr(S_W pinv(S_B)) / C; S_W is the mean of the classes' covariances, S_B the mean
                   of m_c m_c^T
        nc2_norm   standard deviation (population) of |m_c| / mean of |m_c|
        nc2_angle  mean over pairs of abs(cos(m_c, m_c') + 1 / (C - 1))
        nc3        | W / |W| - M / |M| |^2, Frobenius, with W centred as M is
        nc4        share of images whose predicted class is not the class of the nearest mu_c,
                   averaged over classes

    Args:
        features: (N, D).
        labels: (N,) int64.
        weight: (C, D) class vectors by class id; None: ``nc3`` is None.
        predicted: (N,) the classes that the model predicts; None: ``nc4`` is None.

    Returns:
        Names and values; all None if fewer than two classes have an image.
    """
    names = ("nc1", "nc2_norm", "nc2_angle", "nc3", "nc4")
    present = torch.bincount(labels).nonzero().flatten()  # ascending
    if len(present) < 2:
        return dict.fromkeys(names)
    rows = features.double()
    parts = [rows[labels == label] for label in present]
    means = torch.stack([part.mean(dim=0) for part in parts])  # (C, D)
    within = torch.stack([_covariance(part, mean) for part, mean in zip(parts, means, strict=True)])
    centred = means - means.mean(dim=0)
    between = centred.T @ centred / len(present)  # (D, D)
    norms = torch.linalg.vector_norm(centred, dim=1)
    cosines = _pairs((centred / norms[:, None]) @ (centred / norms[:, None]).T)
    ideal = -1 / (len(present) - 1)
    inverse = torch.linalg.pinv(between, hermitian=True)
    values: dict[str, Metric] = {
        "nc1": float((within.mean(dim=0) @ inverse).trace()) / len(present),
        "nc2_norm": float(norms.std(correction=0) / norms.mean()),
        "nc2_angle": float((cosines - ideal).abs().mean()),
        "nc3": None if weight is None else _duality(weight.double()[present], centred),
        "nc4": None if predicted is None else _nearest(parts, means, present, predicted, labels),
    }
    return {name: _finite(values[name]) for name in names}


def _covariance(rows: Tensor, mean: Tensor) -> Tensor:
    away = rows - mean
    return away.T @ away / len(rows)


def _pairs(square: Tensor) -> Tensor:
    """Return the entries above the diagonal of a square matrix, as a vector."""
    first, second = torch.triu_indices(len(square), len(square), offset=1)
    return square[first, second]


def _duality(weight: Tensor, means: Tensor) -> float:
    weight = weight - weight.mean(dim=0)
    scaled = weight / torch.linalg.matrix_norm(weight) - means / torch.linalg.matrix_norm(means)
    return float(scaled.square().sum())


def _nearest(
    parts: list[Tensor], means: Tensor, present: Tensor, predicted: Tensor, labels: Tensor
) -> float:
    """Return the share of images whose nearest class mean is not the predicted class."""
    shares = []
    for label, part in zip(present, parts, strict=True):
        nearest = present[torch.cdist(part, means).argmin(dim=1)]
        shares.append(float((nearest != predicted[labels == label]).double().mean()))
    return math.fsum(shares) / len(shares)


def _finite(value: Metric) -> Metric:
    return value if value is None or math.isfinite(value) else None


def class_vectors(weight: Tensor, counts: Tensor, shots: ShotGroups) -> dict[str, Metric]:
    """Return norms and angles of a head's class vectors, also by class group.

    * ``norm_many``, ``norm_medium``, ``norm_few``: mean norm in the group.
    * ``norm_log_count``: Pearson's correlation of norm and log count over classes with an image.
    * ``angle_mean``, ``angle_min``, ``angle_std`` (population): over all pairs, in degrees.
    * ``angle_many``, ``angle_medium``, ``angle_few``: mean in the group of the angle to the nearest
      other class vector.

    Args:
        weight: (C, D), C >= 2.
        counts: Class counts (C,) of the training images.
        shots: The run's groups.
    """
    rows = weight.double()
    norms = torch.linalg.vector_norm(rows, dim=1)
    units = rows / norms[:, None].clamp_min(torch.finfo(rows.dtype).tiny)
    angles = torch.rad2deg(torch.arccos((units @ units.T).clamp(-1, 1)))
    nearest = angles.clone().fill_diagonal_(math.inf).amin(dim=1)  # (C,)
    pairs, held = _pairs(angles), counts > 0
    values: dict[str, Metric] = {
        "norm_log_count": _correlation(norms[held], counts[held].double().log()),
        "angle_mean": float(pairs.mean()),
        "angle_min": float(pairs.min()),
        "angle_std": float(pairs.std(correction=0)),
    }
    for name, classes in shots.items():
        group = list(classes)
        values[f"norm_{name}"] = float(norms[group].mean()) if group else None
        values[f"angle_{name}"] = float(nearest[group].mean()) if group else None
    return {name: _finite(value) for name, value in values.items()}


def _correlation(first: Tensor, second: Tensor) -> Metric:
    """Return Pearson's correlation; None if one of the inputs is constant up to rounding."""
    away = [one - one.mean() for one in (first, second)]
    lengths = [torch.linalg.vector_norm(one) for one in away]
    least = [_ROUNDING * one.abs().sum() for one in (first, second)]
    if bool(lengths[0] <= least[0]) or bool(lengths[1] <= least[1]):
        return None
    return float(away[0] @ away[1] / (lengths[0] * lengths[1]))


def pruned_energy(
    features: Tensor, labels: Tensor, weight: Tensor, shots: ShotGroups
) -> dict[str, Metric]:
    """Return the share of the features' energy at which the class vector is exactly zero.

    For an image of class c with features h, the share is the sum of h_d^2 over all d with w_cd = 0,
    divided by |h|^2. ``pruned`` is the mean over classes, ``pruned_many`` and so on the mean over a
    group's classes. ``pruned_share`` is the share of zeros in the weight, for comparison: features
    without preferred directions would have this share.

    Args:
        features: (N, D), as they enter the product with the weight.
        labels: (N,) int64.
        weight: (C, D).
        shots: The run's groups.

    Returns:
        Names and values; an empty dictionary if the weight has no zero.
    """
    zero = weight == 0  # (C, D)
    if not bool(zero.any()):
        return {}
    squares = features.double().square()
    total = squares.sum(dim=1)
    shares = (squares * zero[labels]).sum(dim=1) / total.clamp_min(torch.finfo(total.dtype).tiny)
    by_class = {int(c): float(shares[labels == c].mean()) for c in torch.bincount(labels).nonzero()}
    values: dict[str, Metric] = {
        "pruned_share": float(zero.double().mean()),
        "pruned": mean(list(by_class.values())),
    }
    for name, classes in shots.items():
        values[f"pruned_{name}"] = mean([by_class[c] for c in classes if c in by_class])
    return values
