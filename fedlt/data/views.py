"""Weak and strong views of normalised batches, as MDCS has them.

Zhao et al., ICCV 2023, https://arxiv.org/abs/2308.09922: the weak view turns an image by up to 15
degrees, the strong one is AutoAugment's policy for CIFAR-10, then Cutout. Both are made of 8-bit
pixels, to which a batch is taken back.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedlt.data import pixels
from fedlt.data.augment import normalize
from fedlt.data.autoaugment import autoaugment
from fedlt.data.distort import distort

__all__ = ["paired_views", "single_view", "strong_view", "to_pixels", "turned"]


def to_pixels(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Undo :func:`fedlt.data.augment.normalize`: float32 to uint8, to the nearest value.

    Args:
        images: float32 (B, Ch, H, W).
        mean: (Ch,), of pixel / 255.
        std: (Ch,), likewise.
    """
    values = (images * std.view(-1, 1, 1) + mean.view(-1, 1, 1)) * 255
    return values.round().clamp(0, 255).to(torch.uint8)


def turned(
    images: Tensor, mean: Tensor, std: Tensor, generator: torch.Generator, *, degrees: float
) -> Tensor:
    """Turn every image by an angle uniform on -degrees .. degrees; black comes in.

    Args:
        images: float32 (B, Ch, H, W), normalised; not changed.
        mean: (Ch,), of pixel / 255.
        std: (Ch,), likewise.
        generator: CPU generator.
        degrees: 0 returns the images themselves, without a draw.

    Returns:
        float32 (B, Ch, H, W).
    """
    if degrees == 0:
        return images
    angles = (torch.rand(len(images), generator=generator) * 2 - 1) * degrees
    matrices = pixels.rotation(angles).to(images.device)
    return normalize(pixels.warp(to_pixels(images, mean, std), matrices, fill=0), mean, std)


def strong_view(images: Tensor, mean: Tensor, std: Tensor, generator: torch.Generator) -> Tensor:
    """Return AutoAugment and Cutout of every image; the cut square is black.

    Args:
        images: float32 (B, Ch, H, W), normalised; not changed.
        mean: (Ch,), of pixel / 255.
        std: (Ch,), likewise.
        generator: CPU generator; the same draws whatever the device.

    Returns:
        float32 (B, Ch, H, W).
    """
    changed = autoaugment(to_pixels(images, mean, std), generator)
    centres = torch.rand((2, len(images)), generator=generator)
    return normalize(pixels.cutout(changed, centres), mean, std)


def single_view(
    images: Tensor, mean: Tensor, std: Tensor, generator: torch.Generator, *, kind: str
) -> Tensor:
    """Return one view of every image.

    Args:
        images: float32 (B, Ch, H, W), normalised; not changed.
        mean: (Ch,), of pixel / 255.
        std: (Ch,), likewise.
        generator: CPU generator.
        kind: ``autoaugment`` for :func:`strong_view`; ``distort``; ``none`` returns the images
            themselves, without a draw.
    """
    if kind == "autoaugment":
        return strong_view(images, mean, std, generator)
    return distort(images, generator) if kind == "distort" else images


def paired_views(
    images: Tensor,
    mean: Tensor,
    std: Tensor,
    generator: torch.Generator,
    *,
    degrees: float,
    strong: str,
) -> Tensor:
    """Return the weak views of a batch, then its strong ones: (2B, Ch, H, W).

    Args:
        images: float32 (B, Ch, H, W), normalised; not changed.
        mean: (Ch,), of pixel / 255.
        std: (Ch,), likewise.
        generator: CPU generator.
        degrees: Of :func:`turned`, which makes the weak views.
        strong: The kind of :func:`single_view` of the strong ones.
    """
    weak = turned(images, mean, std, generator, degrees=degrees)
    return torch.cat([weak, single_view(images, mean, std, generator, kind=strong)])
