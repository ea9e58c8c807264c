"""SSE-C, the sparse simplex equiangular tight frame classifier of FedLoGe.

FedLoGe: Xiao et al., ICLR 2024, https://openreview.net/forum?id=V3j5d0GQgH. Random entries of a
dense simplex frame are set to zero. The other entries are then optimised until all class vectors
have (nearly) equal norms and equal angles again. Weights have one row per class, (C, D).
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor

from fedlt.errors import FedltError
from fedlt.machine.denormals import flushed_denormals
from fedlt.models.etf_cache import cached_tensor
from fedlt.rng import torch_generator

MAX_ANGLE_VARIANCE: Final = 1.0  # deg^2: a frame worse than this is refused
_LARGEST_FEATURES: Final = 4096  # the search for a wide enough frame ends here
_COS_LIMIT: Final = 0.99999  # cosines beyond get no gradient of the angle term
_BETA1, _BETA2, _EPS = 0.9, 0.999, 1e-8  # Adam's defaults
_LEARNING_RATE: Final = 1e-4


def angle_variance(weight: Tensor) -> float:
    """Return the variance, in degrees^2, of the angles between all pairs of class vectors.

    Args:
        weight: Class vectors (C, D), C >= 2, none of them zero.
    """
    rows = weight.detach().double()
    units = rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    first, second = torch.triu_indices(len(rows), len(rows), offset=1)
    cosines = (units @ units.T)[first, second].clamp(-1, 1)
    return float(torch.rad2deg(torch.arccos(cosines)).var(correction=0))


def dense_etf(num_features: int, num_classes: int, generator: torch.Generator) -> Tensor:
    """Return a simplex equiangular tight frame in a random orientation.

    The frame is ``sqrt(C/(C-1)) (I - 11^T/C) P^T``. P (D, C) has orthonormal columns from the QR
    decomposition of a matrix uniform on [0, 1). Rows have norm 1, every pair has cosine -1/(C-1).

    Args:
        num_features: D, at least C.
        num_classes: C, at least 2.
        generator: Source of the orientation.

    Returns:
        Class vectors (C, D), float32.

    Raises:
        FedltError: If there are fewer features than classes, or fewer than two classes.
    """
    if num_classes < 2:
        raise FedltError(f"sparse_etf: needs at least 2 classes, got {num_classes}")
    if num_features < num_classes:
        raise FedltError(
            f"dense_etf: needs at least as many features as classes, got {num_features} features "
            f"for {num_classes} classes"
        )
    start = torch.rand(num_features, num_classes, generator=generator, dtype=torch.float64)
    basis: Tensor = torch.linalg.qr(start).Q  # (D, C)
    scale = math.sqrt(num_classes / (num_classes - 1))
    return (scale * (basis - basis.mean(dim=1, keepdim=True))).T.float().contiguous()


def sparse_mask(
    num_features: int, num_classes: int, sparsity: float, generator: torch.Generator
) -> Tensor:
    """Return a random mask that sets ``int(sparsity * D * C)`` entries of the matrix to zero.

    Args:
        num_features: D.
        num_classes: C.
        sparsity: Share of zeros, in [0, 1).
        generator: Source of the choice.

    Returns:
        Mask (C, D), bool: True where an entry stays.

    Raises:
        FedltError: If the sparsity is outside [0, 1).
    """
    _check_sparsity(sparsity)
    size = num_features * num_classes
    mask = torch.ones(size, dtype=torch.bool)
    mask[torch.randperm(size, generator=generator)[: int(sparsity * size)]] = False
    return mask.view(num_classes, num_features)


def _check_sparsity(sparsity: float) -> None:
    if not 0 <= sparsity < 1:
        raise FedltError(f"sparse_etf: sparsity must be in [0, 1), got {sparsity}")


def _gradient(weight: Tensor, norm: float) -> Tensor:
    """Return the gradient (C, D) of the loss in :func:`repair`, written out by hand."""
    norms: Tensor = torch.linalg.vector_norm(weight, dim=1, keepdim=True)  # (C, 1)
    units = weight / norms
    cosines = (units @ units.T).fill_diagonal_(-1)  # (C, C)
    nearest, partner = cosines.max(dim=1, keepdim=True)  # (C, 1)
    # d(-arccos(m)/C)/dm = 1/(C sqrt(1 - m^2)), for the nearest class only
    slope = (1 - nearest.square()).rsqrt() / len(weight) * (nearest.abs() < _COS_LIMIT)
    pull = torch.zeros_like(cosines).scatter_(1, partner, slope)
    pull = pull + pull.T
    radial = (pull * cosines).sum(dim=1, keepdim=True)
    return (pull @ units - radial * units) / norms + 2 * (norms - norm) * units


def repair(weight: Tensor, mask: Tensor, *, norm: float, steps: int) -> Tensor:
    """Return class vectors whose entries in the mask are optimised to equal norms and angles.

    The loss is ``sum_c (|w_c| - norm)^2 - (1/C) sum_c arccos(max_{j != c} cos(w_c, w_j))``. The
    optimiser is Adam (Kingma and Ba, ICLR 2015, https://arxiv.org/abs/1412.6980) with default
    moments and a masked gradient, so zeros stay exactly zero.

    Args:
        weight: Class vectors (C, D) to start from, zero outside the mask; not written.
        mask: Entries that may change (C, D), bool.
        norm: Norm that every class vector should get.
        steps: Number of Adam steps.

    Returns:
        Class vectors (C, D).
    """
    weight = weight.clone()
    allowed = mask.to(weight.dtype)
    first, second = torch.zeros_like(weight), torch.zeros_like(weight)
    for step in range(1, steps + 1):
        gradient = _gradient(weight, norm).mul_(allowed)
        first.lerp_(gradient, 1 - _BETA1)
        second.mul_(_BETA2).addcmul_(gradient, gradient, value=1 - _BETA2)
        scale = second.sqrt().div_(math.sqrt(1 - _BETA2**step)).add_(_EPS)
        weight.addcdiv_(first, scale, value=-_LEARNING_RATE / (1 - _BETA1**step))
    return weight


def _attempt(
    num_features: int, num_classes: int, *, sparsity: float, norm: float, seed: int, steps: int
) -> Tensor:
    generator = torch_generator(seed, "sparse_etf")
    dense = dense_etf(num_features, num_classes, generator)
    mask = sparse_mask(num_features, num_classes, sparsity, generator)
    if bool(mask.all()):
        return norm * dense  # the minimum in closed form
    with flushed_denormals():  # as in a run: the cached bits must not depend on the caller
        return repair(dense * mask, mask, norm=norm, steps=steps)


def _is_equiangular(weight: Tensor) -> bool:
    return angle_variance(weight) <= MAX_ANGLE_VARIANCE  # False for NaN


def sparse_etf(
    num_features: int,
    num_classes: int,
    *,
    sparsity: float = 0.6,
    norm: float = 0.1,
    seed: int,
    steps: int = 10_000,
) -> Tensor:
    """Return the class vectors of SSE-C, from the disk cache if an earlier call made them.

    Args:
        num_features: Features per stream, D, at least C.
        num_classes: Number of classes, C, at least 2.
        sparsity: Share of zeros, in [0, 1); the paper's beta. 0 gives the exact simplex frame.
        norm: Norm of every class vector, above 0; the paper's gamma.
        seed: The run's seed.
        steps: Adam steps of the repair.

    Returns:
        Class vectors (C, D), float32, which the caller may change.

    Raises:
        FedltError: If a value is out of range, or if the repaired angles still vary by more than
            1 deg^2, since too few features are left for the number of classes.
    """
    if not (norm > 0 and math.isfinite(norm)):
        raise FedltError(f"sparse_etf: norm must be finite and above 0, got {norm}")

    _check_sparsity(sparsity)
    if num_features < num_classes:
        raise FedltError(_too_narrow(num_features, num_classes, sparsity))

    def make(features: int) -> Tensor:
        inputs = {"sparsity": sparsity, "norm": norm, "seed": seed, "steps": steps}
        key = {"features": features, "classes": num_classes, **inputs}
        return cached_tensor(
            "sparse-etf",
            key,
            (num_classes, features),
            lambda: _attempt(
                features, num_classes, sparsity=sparsity, norm=norm, seed=seed, steps=steps
            ),
        )

    weight = make(num_features)
    if _is_equiangular(weight):
        return weight
    wider = num_features * 2
    while wider <= _LARGEST_FEATURES and not _is_equiangular(make(wider)):
        wider *= 2
    works = f"{wider} features work (model.width), or " if wider <= _LARGEST_FEATURES else ""
    raise FedltError(
        f"sparse_etf: {num_features} features are too few for {num_classes} classes at sparsity "
        f"{sparsity}: angles vary by {angle_variance(weight):.2g} deg^2 after {steps} "
        f"steps; {works}lower the sparsity (strategy.sparsity): at 0 these features are enough"
    )


def _too_narrow(num_features: int, num_classes: int, sparsity: float) -> str:
    """Return the error message for too few features, with a backbone width that is enough.

    C vectors have C (C - 1) / 2 angles. Two vectors share (1 - sparsity)^2 D entries on average
    that may differ from zero. The width is an empirical rule: random sparse frames could be
    repaired with twice as many nonzero entries in all as angles, and 6 shared entries.
    """
    share = 1 - sparsity
    needed = max(num_classes, 6 / share) / share if sparsity else num_classes
    enough = math.ceil(round(needed, 6))  # 1 - 0.8 is a little below 0.2
    times = math.ceil(enough / num_features)
    return (
        f"sparse_etf: got {num_features} features, fewer than the {num_classes} classes; a frame "
        f"needs {num_classes} at sparsity 0, about {enough} at sparsity {sparsity:g}: take a "
        f"backbone {times} times as wide (model.width), which has {times * num_features}"
    )
