"""Mixup and CutMix of whole batches, with soft targets, for batches of any size.

* mixup: Zhang et al., ICLR 2018, https://arxiv.org/abs/1710.09412.
* CutMix: Yun et al., ICCV 2019, https://arxiv.org/abs/1905.04899, algorithm 1.

Every image meets the one before it in the batch, the first one the last: batches are shuffled, so
that is a random partner, and another one in an odd batch as well. An image alone stays as it is.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

Mixed = tuple[Tensor, Tensor, Tensor]  # images, targets (B, C), classes of the larger parts (B,)


def soft_targets(labels: Tensor, num_classes: int, *, smoothing: float) -> Tensor:
    """Return one-hot targets (B, C) with ``smoothing / C`` of the mass on every class.

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
    """Mix a batch by mixup or by CutMix, one draw for all of it.

    With both alphas 0, and of one image, images and labels come back as they are.

    Args:
        images: (B, Ch, H, W); not written.
        labels: (B,) int64.
        num_classes: C.
        generator: CPU generator; it gives the same draws whatever the device.
        mixup: alpha of the Beta distribution of mixup; 0: never.
        cutmix: alpha of that of CutMix; 0: never.
        switch: Probability of CutMix where both are above 0.
        smoothing: Of the labels before they are mixed.
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
    """Paste a box of ``others`` into ``images``, cut off at the border.

    Args:
        images: (B, Ch, H, W); not written.
        others: Likewise.
        share: What is to be left of ``images``: the box is ``sqrt(1 - share)`` of each side.
        centre: Of the box, in units of height and width.

    Returns:
        The images, and the share of their pixels that is their own.
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
