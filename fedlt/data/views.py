"""Weak and strong views of normalised batches, as MDCS has them.

Zhao et al., ICCV 2023, https://arxiv.org/abs/2308.09922: the weak view turns an image by up to 15
degrees, the strong one is AutoAugment's policy for CIFAR-10, then Cutout. Both are made of 8-bit
pixels, to which a batch is taken back; each has a crop and a flip of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fedlt.data import pixels
from fedlt.data.augment import augment as augment_images
from fedlt.data.augment import normalize
from fedlt.data.autoaugment import autoaugment
from fedlt.data.distort import distort

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fedlt.batch import Batch, ClientData


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


def plain_views_note(name: str, augment: str, degrees: float) -> str:
    """Return a line for the start of a run whose file crops and flips nothing; else none.

    Args:
        name: Of the plugin.
        augment: The file's ``local.augment``.
        degrees: By which the weak view is turned at most.
    """
    if augment != "none":
        return ""
    weak = f"the turn alone (up to {degrees:g} degrees)" if degrees else "the image itself"
    return (
        f"{name}: local.augment is none, so that the weak view is {weak}, and the strong one is "
        "not cropped or flipped first; in the paper both are: local.augment: crop_flip"
    )


def paired_views(
    data: ClientData,
    batches: Iterable[Batch],
    generator: torch.Generator,
    *,
    augment: str,
    degrees: float,
    strong: str,
) -> Iterator[Batch]:
    """Yield the weak views of each batch, then its strong ones, as one batch of 2B images.

    The weak view is the batch's own image, turned. The strong view has a crop and a flip of its
    own, by ``augment``: they are drawn anew from the pixels of the images, where
    the batch has them, else from the batch's images.

    Args:
        data: Holds the mean and deviation of the pixels.
        batches: Images float32 (B, Ch, H, W), normalised; not changed.
        generator: CPU generator. Per batch: the turns, the crops and flips, the strong views.
        augment: The file's ``local.augment``.
        degrees: Of :func:`turned`, which makes the weak views.
        strong: The kind of :func:`single_view` of the strong ones.
    """
    mean, std = data.mean, data.std
    for batch in batches:
        weak, fresh = turned(batch.images, mean, std, generator, degrees=degrees), batch.images
        if augment != "none":
            given = batch.pixels
            own = to_pixels(batch.images, mean, std) if given is None else given
            fresh = normalize(augment_images(own, augment, generator), mean, std)
        other = single_view(fresh, mean, std, generator, kind=strong)
        yield batch.viewed(torch.cat([weak, other]))
