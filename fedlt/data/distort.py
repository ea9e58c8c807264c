"""Strong views of a batch: random shift, contrast, brightness and Cutout for each image.

Cutout: DeVries and Taylor, 2017, https://arxiv.org/abs/1708.04552.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def distort(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return a strong view of every image, which still shows the class.

    The steps in order: shift by up to an eighth of the side, filled with zeros; contrast factor
    from 0.6 to 1.4 about the image's mean; brightness offset from -0.4 to 0.4; a square of half
    the side, with its centre anywhere, set to zero.

    Args:
        images: float32 (B, Ch, H, W), normalised: 0 is the mean of the data; not changed.
        generator: CPU generator, so that the random numbers are the same on every device.

    Returns:
        float32 (B, Ch, H, W).
    """
    count, _, height, width = images.shape
    reach = max(1, height // 8)
    offsets = torch.randint(0, 2 * reach + 1, (2, count), generator=generator)
    tones = torch.rand((2, count), generator=generator).to(images.device) * 2 - 1
    centres = torch.rand((2, count), generator=generator)
    shifted = _shift(images, offsets.to(images.device), reach)
    contrast, brightness = (tones * 0.4).view(2, count, 1, 1, 1)
    mean = shifted.mean(dim=(1, 2, 3), keepdim=True)
    toned = (shifted - mean) * (1 + contrast) + mean + brightness
    rows = _outside(centres[0], height).to(images.device)[:, None, :, None]
    columns = _outside(centres[1], width).to(images.device)[:, None, None, :]
    whole: Tensor = toned * (rows | columns)
    return whole


def _shift(images: Tensor, offsets: Tensor, reach: int) -> Tensor:
    """Return crops (H, W) of the zero-padded images at ``offsets`` (2, B)."""
    count, channels, height, width = images.shape
    padded = functional.pad(images, (reach,) * 4)
    rows = offsets[0][:, None] + torch.arange(height, device=images.device)  # (B, H)
    columns = offsets[1][:, None] + torch.arange(width, device=images.device)  # (B, W)
    which = torch.arange(count, device=images.device)[:, None, None, None]
    planes = torch.arange(channels, device=images.device)[None, :, None, None]
    return padded[which, planes, rows[:, None, :, None], columns[:, None, None, :]]


def _outside(centres: Tensor, size: int) -> Tensor:
    """Return bool (B, size): True outside a window of size // 2 around each centre."""
    places = torch.arange(size)
    middle = (centres * size).floor()[:, None]
    return (places < middle - size // 4) | (places >= middle - size // 4 + size // 2)
