"""Mixup and CutMix of whole batches, with soft targets, for batches of any size.

* mixup: Zhang et al., ICLR 2018, https://arxiv.org/abs/1710.09412.
* CutMix: Yun et al., ICCV 2019, https://arxiv.org/abs/1905.04899, algorithm 1.

Every image is mixed with the image before it in the batch, and the first image with the last.
Batches are shuffled, so this partner is random. A batch of one image stays as it is.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

Mixed = tuple[Tensor, Tensor, Tensor]  # images, targets (B, C), classes of the larger parts (B,)


def soft_targets(labels: Tensor, num_classes: int, *, smoothing: float) -> Tensor:
    """Return smoothed targets (B, C): (1 - smoothing) * one-hot, plus smoothing / C on all classes.

    Args:
        labels: (B,) int64.
        num_classes: C.
        smoothing: In [0, 1).
    """
    one_hot = torch.nn.functional.one_hot(labels, num_classes).float()
    return one_hot * (1 - smoothing) + smoothing / num_classes


def mix(
    images: Tensor,
    labels: Tensor,
    num_classes: int,
    generator: torch.Generator,
    *,
    mixup: float,
    cutmix: float,
    switch: float = 0.5,
    smoothing: float = 0.0,
) -> Mixed:
    """Return a batch mixed by mixup or by CutMix, with one random choice for the whole batch.

    If both alphas are 0, or the batch has one image, images and classes come back unmixed.

    Args:
        images: (B, Ch, H, W); not written.
        labels: (B,) int64.
        num_classes: C.
        generator: CPU generator, so that the random numbers are the same on every device.
        mixup: alpha of mixup's Beta distribution; 0: no mixup.
        cutmix: alpha of CutMix's Beta distribution; 0: no CutMix.
        switch: Probability of CutMix if both alphas are above 0.
        smoothing: Label smoothing before the mixture.
    """
    targets = soft_targets(labels, num_classes, smoothing=smoothing)
    if len(labels) < 2 or not (mixup or cutmix):
        return images, targets, labels
    cuts = bool(cutmix) and (not mixup or _uniform(generator) < switch)
    share = _beta(cutmix if cuts else mixup, generator)
    if cuts:
        centre = (_uniform(generator), _uniform(generator))
        mixed, share = paste(images, images.roll(1, 0), share, centre)
    else:
        mixed = images * share + images.roll(1, 0) * (1 - share)
    larger = labels if share >= 0.5 else labels.roll(1)
    return mixed, targets * share + targets.roll(1, 0) * (1 - share), larger


def paste(
    images: Tensor, others: Tensor, share: float, centre: tuple[float, float]
) -> tuple[Tensor, float]:
    """Return ``images`` with a box of ``others`` pasted in; the box is clipped at the border.

    Args:
        images: (B, Ch, H, W); not written.
        others: (B, Ch, H, W); not written.
        share: Share of ``images`` to keep: the box has ``sqrt(1 - share)`` of each side.
        centre: Centre of the box, as shares of height and width.

    Returns:
        The mixed images, and the share of their pixels that comes from ``images``.
    """
    sides = images.shape[2:]
    spans = []
    for side, place in zip(sides, centre, strict=True):
        middle, length = int(place * side), int(side * math.sqrt(1 - share))
        spans.append(slice(max(0, middle - length // 2), min(side, middle - length // 2 + length)))
    rows, columns = spans
    mixed = images.clone()
    mixed[:, :, rows, columns] = others[:, :, rows, columns]
    area = (rows.stop - rows.start) * (columns.stop - columns.start)
    return mixed, 1 - area / (sides[0] * sides[1])


def _uniform(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator))


def _beta(alpha: float, generator: torch.Generator) -> float:
    """Return a draw from Beta(alpha, alpha)."""
    pair = torch._standard_gamma(torch.full((2,), alpha, dtype=torch.float64), generator=generator)
    return float(pair[0] / pair.sum().clamp(min=1e-300))
