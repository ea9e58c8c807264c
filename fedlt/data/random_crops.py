"""Augmentation of ImageNet training: random resized crops, flips, and colour jitter, per image.

Random resized crop: Szegedy et al., Going deeper with convolutions, CVPR 2015, section 6,
https://arxiv.org/abs/1409.4842; with torchvision's ranges. Colour jitter of brightness, contrast
and saturation by factors between 0.6 and 1.4, in random order. The arithmetic of 8-bit images is
that of ``torchvision.transforms.v2``, up to one level where its resize computes in integers.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from fedlt.data.pixels import brightness, color, contrast

SCALE = (0.08, 1.0)  # of the image's area
RATIO = (3 / 4, 4 / 3)  # width to height
JITTER = 0.4  # largest change of a factor
_TRIES = 10  # crops drawn before the middle of the image is taken
_CHANGES = (brightness, contrast, color)


def draw_boxes(count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Return random crops (count, 4), int64: top, left, height, width.

    A crop has a random share of the area and a random ratio, even in the logarithm. Of ten draws
    the first that fits into the image is taken; if none fits, the largest crop in the middle whose
    ratio is allowed.

    Args:
        count: Number of crops.
        height: Height of the images.
        width: Width of the images.
        generator: CPU generator.
    """
    draws = torch.rand((4, _TRIES, count), generator=generator, dtype=torch.float64)
    areas = height * width * (SCALE[0] + (SCALE[1] - SCALE[0]) * draws[0])
    low, high = (math.log(ratio) for ratio in RATIO)
    ratios = (low + (high - low) * draws[1]).exp()
    widths = (areas * ratios).sqrt().round().long()  # (tries, count)
    heights = (areas / ratios).sqrt().round().long()
    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    first = fits.long().argmax(dim=0, keepdim=True)  # (1, count); 0 if none fits
    own = [table.gather(0, first)[0] for table in (heights, widths, draws[2], draws[3])]
    tops = (own[2] * (height - own[0] + 1)).floor().long()
    lefts = (own[3] * (width - own[1] + 1)).floor().long()
    boxes = torch.stack([tops, lefts, own[0], own[1]], dim=1)
    middle = torch.tensor(_middle(height, width))
    return torch.where(fits.any(dim=0)[:, None], boxes, middle)


def _middle(height: int, width: int) -> tuple[int, int, int, int]:
    """Return the largest crop in the middle of an image whose ratio is allowed."""
    ratio = width / height
    h = round(width / RATIO[0]) if ratio < RATIO[0] else height
    w = round(height * RATIO[1]) if ratio > RATIO[1] else width
    return (height - h) // 2, (width - w) // 2, h, w


def resized_crops(images: Tensor, boxes: Tensor) -> Tensor:
    """Return the crops of images, each resized to the images' own size (bilinear, antialiased).

    Args:
        images: uint8 (B, Ch, H, W).
        boxes: (B, 4) as from :func:`draw_boxes`.
    """
    size = (images.shape[2], images.shape[3])
    found = torch.empty_like(images)
    for position, (top, left, height, width) in enumerate(boxes.tolist()):
        crop = images[position, None, :, top : top + height, left : left + width].float()
        resized = functional.interpolate(crop, size, mode="bilinear", antialias=True)
        found[position] = resized[0].round_().clamp_(0, 255).to(images.dtype)
    return found


def jittered(images: Tensor, factors: Tensor, orders: Tensor) -> Tensor:
    """Return images with brightness, contrast and saturation changed, each in an order of its own.

    Args:
        images: uint8 (B, Ch, H, W).
        factors: (3, B) of brightness, contrast, saturation; 1 changes nothing.
        orders: (B, 3), the numbers 0 (brightness), 1 and 2 in some order.
    """
    found = images.clone()
    for step in orders.unbind(1):
        for number, change in enumerate(_CHANGES):
            rows = (step == number).nonzero().squeeze(1)
            if len(rows):
                places = rows.to(images.device)
                found[places] = change(found[places], factors[number, rows])
    return found


def draw_jitter(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return random factors (3, count) and orders (count, 3) for :func:`jittered`."""
    factors = 1 - JITTER + 2 * JITTER * torch.rand((3, count), generator=generator)
    return factors, torch.rand((count, 3), generator=generator).argsort(dim=1)
