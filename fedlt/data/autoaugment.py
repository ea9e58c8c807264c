"""AutoAugment's policy for CIFAR-10 on whole batches, drawn for every image by itself.

Cubuk et al., AutoAugment: learning augmentation strategies from data, CVPR 2019,
https://arxiv.org/abs/1805.09501: table 7 has the sub-policies, table 6 the ranges of magnitudes.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

import fedlt.data.pixels as pixels

_FILL = 128  # grey value of pixels that come from outside the image
_Step = tuple[str, float, int]  # operation, probability, magnitude 0 .. 9

CIFAR10_POLICY: Final[tuple[tuple[_Step, _Step], ...]] = (
    (("invert", 0.1, 7), ("contrast", 0.2, 6)),
    (("rotate", 0.7, 2), ("translate_x", 0.3, 9)),
    (("sharpness", 0.8, 1), ("sharpness", 0.9, 3)),
    (("shear_y", 0.5, 8), ("translate_y", 0.7, 9)),
    (("autocontrast", 0.5, 8), ("equalize", 0.9, 2)),
    (("shear_y", 0.2, 7), ("posterize", 0.3, 7)),
    (("color", 0.4, 3), ("brightness", 0.6, 7)),
    (("sharpness", 0.3, 9), ("brightness", 0.7, 9)),
    (("equalize", 0.6, 5), ("equalize", 0.5, 1)),
    (("contrast", 0.6, 7), ("sharpness", 0.6, 5)),
    (("color", 0.7, 7), ("translate_x", 0.5, 8)),
    (("equalize", 0.3, 7), ("autocontrast", 0.4, 8)),
    (("translate_y", 0.4, 3), ("sharpness", 0.2, 6)),
    (("brightness", 0.9, 6), ("color", 0.2, 8)),
    (("solarize", 0.5, 2), ("invert", 0.0, 3)),
    (("equalize", 0.2, 0), ("autocontrast", 0.6, 0)),
    (("equalize", 0.2, 8), ("equalize", 0.6, 4)),
    (("color", 0.9, 9), ("equalize", 0.6, 6)),
    (("autocontrast", 0.8, 4), ("solarize", 0.2, 8)),
    (("brightness", 0.1, 3), ("color", 0.7, 0)),
    (("solarize", 0.4, 5), ("autocontrast", 0.9, 3)),
    (("translate_y", 0.9, 9), ("translate_y", 0.7, 9)),
    (("autocontrast", 0.9, 2), ("solarize", 0.8, 3)),
    (("equalize", 0.8, 8), ("invert", 0.1, 3)),
    (("translate_y", 0.7, 9), ("autocontrast", 0.9, 1)),
)
_OPERATIONS: Final = tuple(sorted({name for pair in CIFAR10_POLICY for name, _, _ in pair}))


def autoaugment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return the images, each changed by a randomly drawn sub-policy.

    A sub-policy has two steps. Whether a step is applied, and the sign of its magnitude, are drawn
    for every image.

    Args:
        images: uint8 (B, Ch, H, W) on any device; not changed.
        generator: CPU generator, so that the random numbers are the same on every device.

    Returns:
        uint8 (B, Ch, H, W).
    """
    count = len(images)
    chosen = torch.randint(0, len(CIFAR10_POLICY), (count,), generator=generator)
    chances = torch.rand((2, count), generator=generator)
    signs = torch.randint(0, 2, (2, count), generator=generator) * 2 - 1
    for step in range(2):
        names = torch.tensor([_OPERATIONS.index(pair[step][0]) for pair in CIFAR10_POLICY])
        likely = torch.tensor([pair[step][1] for pair in CIFAR10_POLICY])
        levels = torch.tensor([pair[step][2] for pair in CIFAR10_POLICY])
        operation = torch.where(chances[step] < likely[chosen], names[chosen], -1)
        for number in sorted(set(operation.tolist())):
            if number >= 0:
                where = (operation == number).nonzero()[:, 0]
                level, sign = levels[chosen][where] / 9, signs[step][where]
                place = where.to(images.device)
                changed = _apply(_OPERATIONS[number], images[place], level, sign)
                images = images.index_copy(0, place, changed)
    return images


def _apply(name: str, images: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """Return images changed by one operation, with levels (B,) in 0 .. 1 and signs (B,) -1 or 1."""
    width, device = images.shape[3], images.device
    if name in ("invert", "autocontrast", "equalize"):
        changed: Tensor = getattr(pixels, name)(images)
        return changed
    if name in ("brightness", "color", "contrast", "sharpness"):
        blended: Tensor = getattr(pixels, name)(images, 1 + 0.9 * sign * level)
        return blended
    if name == "posterize":
        return pixels.posterize(images, (8 - (4 * level).round()).to(device))
    if name == "solarize":
        return pixels.solarize(images, (255 * (1 - level)).to(device))
    shift = sign * level * 150 / 331  # share of a side; the policy was found at 331 pixels
    matrices = {
        "rotate": pixels.rotation(30 * sign * level),
        "shear_y": pixels.shear_y(0.3 * sign * level, width),
        "translate_x": pixels.translation(shift * width, torch.zeros_like(shift)),
        "translate_y": pixels.translation(torch.zeros_like(shift), shift * images.shape[2]),
    }
    is_shear = name == "shear_y"  # bicubic, as in the policy's published code
    return pixels.warp(images, matrices[name].to(device), fill=_FILL, bicubic=is_shear)
