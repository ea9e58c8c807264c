"""Seeded augmentation of each image, and normalisation, on whole batches, on CPU or GPU.

Random crop after zero padding and horizontal flip: K. He et al., "Deep Residual Learning for Image
Recognition", CVPR 2016, section 4.2, https://arxiv.org/abs/1512.03385. ImageNet's augmentation is
in :mod:`fedlt.data.random_crops`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from fedlt.data.random_crops import draw_boxes, draw_jitter, jittered, resized_crops
from fedlt.errors import FedltError, nearest

SCHEMES = ("none", "crop", "crop_flip", "imagenet")


def crop_padding(height: int) -> int:
    """Return the zero padding in pixels: 4 for 32, 3 for 28, 1 for 8 (height // 8, at least 1)."""
    return max(1, height // 8)


def augment(images: Tensor, scheme: str, generator: torch.Generator) -> Tensor:
    """Return an augmented batch, every image augmented at random by itself.

    ``crop`` draws a row and a column offset per image; ``crop_flip`` then also draws a flip per
    image. ``imagenet`` draws a crop that is resized to the image's size, a flip, and changes of the
    colours: :mod:`fedlt.data.random_crops`. ``none`` draws no random number and returns the batch
    itself.

    Args:
        images: uint8 or float32 (B, Ch, H, W) on any device; not changed. ``imagenet``: uint8.
        scheme: One of :data:`SCHEMES`.
        generator: CPU generator, so that the random numbers are the same on every device.

    Returns:
        Images of the same type and shape on the same device.

    Raises:
        FedltError: If the scheme is unknown.
    """
    if scheme not in SCHEMES:
        raise FedltError(f"local.augment: unknown {scheme!r}{nearest(scheme, SCHEMES)}")
    if scheme == "none":
        return images
    if scheme == "imagenet":
        return _imagenet(images, generator)
    count, padding = images.shape[0], crop_padding(images.shape[2])
    offsets = torch.randint(0, 2 * padding + 1, (2, count), generator=generator)
    cropped = _crop(images, padding, offsets)
    if scheme == "crop":
        return cropped
    flips = torch.randint(0, 2, (count,), generator=generator)
    return _flip(cropped, flips)


def _imagenet(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return random resized crops, flipped and with jittered colours; draws in this order."""
    count, _, height, width = images.shape
    crops = resized_crops(images, draw_boxes(count, height, width, generator))
    flipped = _flip(crops, torch.randint(0, 2, (count,), generator=generator))
    return jittered(flipped, *draw_jitter(count, generator))


def _crop(images: Tensor, padding: int, offsets: Tensor) -> Tensor:
    """Return crops (H, W) of the zero-padded images at ``offsets`` (2, B), copied row by row.

    Every row of a crop is a window of W values in the flat padded batch. The overlapping windows
    form a strided view, from which one index_select copies all rows.
    """
    count, channels, height, width = images.shape
    padded = functional.pad(images, (padding,) * 4).contiguous().view(-1)
    row = width + 2 * padding  # values from one padded row to the next
    plane = row * (height + 2 * padding)
    windows = padded.as_strided((padded.numel() - width + 1, width), (1, 1))
    first = torch.arange(count) * (channels * plane) + offsets[0] * row + offsets[1]  # (B,)
    rows = torch.arange(channels)[:, None] * plane + torch.arange(height) * row  # (Ch, H)
    starts = (first[:, None, None] + rows).view(-1).to(images.device, non_blocking=True)
    return windows.index_select(0, starts).view(images.shape)


def _flip(images: Tensor, flips: Tensor) -> Tensor:
    """Return the images, with those where ``flips`` (B,) is 1 mirrored in place."""
    chosen = flips.nonzero().squeeze(1).to(images.device, non_blocking=True)
    return images.index_copy_(0, chosen, images.index_select(0, chosen).flip(3))


def normalize(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Return (images / 255 - mean) / std as float32, computed as images * scale - shift.

    Float images are not divided by 255.

    Args:
        images: uint8 or float32 (B, Ch, H, W), not changed; the memory format (such as
            channels_last) is kept.
        mean: float32 (Ch,), mean of pixel / 255, on the same device.
        std: float32 (Ch,), standard deviation of pixel / 255, on the same device.

    Returns:
        float32 (B, Ch, H, W).
    """
    shift = (mean / std).view(-1, 1, 1)
    if images.dtype == torch.uint8:
        scale = (1 / (255 * std)).view(-1, 1, 1)
        return images.to(torch.float32).mul_(scale).sub_(shift)
    return images.to(torch.float32, copy=True).mul_((1 / std).view(-1, 1, 1)).sub_(shift)


def unit_range(images: Tensor) -> Tensor:
    """Return uint8 images as floats in [0, 1]; float images come back as they are."""
    return images.float() / 255 if images.dtype == torch.uint8 else images
