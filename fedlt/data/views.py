"""Weak and strong views of normalised batches, as in MDCS.

Zhao et al., ICCV 2023, https://arxiv.org/abs/2308.09922. The weak view turns an image by up to 15
degrees. The strong view applies AutoAugment's policy for CIFAR-10, then Cutout. Views are made from
8-bit pixels, so a normalised batch is first converted back; values of float images are rounded to
them. Each view has its own crop and flip.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

import fedlt.data.pixels as pixels
from fedlt.data.augment import augment as augment_images
from fedlt.data.augment import normalize
from fedlt.data.autoaugment import autoaugment
from fedlt.data.distort import distort

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fedlt.optim.batch import Batch, ClientData


def to_pixels(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Return normalised images as uint8 pixels, rounded and clipped to 0 .. 255.

    This is the inverse of :func:`fedlt.data.augment.normalize`.

    Args:
        images: float32 (B, Ch, H, W), normalised.
        mean: (Ch,), mean of pixel / 255.
        std: (Ch,), standard deviation of pixel / 255.
    """
    values = (images * std.view(-1, 1, 1) + mean.view(-1, 1, 1)) * 255
    return values.round().clamp(0, 255).to(torch.uint8)


def turned(
    images: Tensor, mean: Tensor, std: Tensor, generator: torch.Generator, *, degrees: float
) -> Tensor:
    """Return every image turned by an angle uniform on -degrees .. degrees, filled with black.

    Args:
        images: float32 (B, Ch, H, W), normalised; not changed.
        mean: (Ch,), mean of pixel / 255.
        std: (Ch,), standard deviation of pixel / 255.
        generator: CPU generator.
        degrees: Largest angle; 0 returns the images themselves and draws no random number.

    Returns:
        float32 (B, Ch, H, W).
    """
    if degrees == 0:
        return images
    angles = (torch.rand(len(images), generator=generator) * 2 - 1) * degrees
    matrices = pixels.rotation(angles).to(images.device)
    return normalize(pixels.warp(to_pixels(images, mean, std), matrices, fill=0), mean, std)


def strong_view(images: Tensor, mean: Tensor, std: Tensor, generator: torch.Generator) -> Tensor:
    """Return every image after AutoAugment and Cutout; the cut square is black.

    Args:
        images: float32 (B, Ch, H, W), normalised; not changed.
        mean: (Ch,), mean of pixel / 255.
        std: (Ch,), standard deviation of pixel / 255.
        generator: CPU generator, so that the random numbers are the same on every device.

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
        mean: (Ch,), mean of pixel / 255.
        std: (Ch,), standard deviation of pixel / 255.
        generator: CPU generator.
        kind: ``autoaugment`` for :func:`strong_view`; ``distort`` for :func:`distort`; ``none``
            for the images themselves, without a random number drawn.
    """
    if kind == "autoaugment":
        return strong_view(images, mean, std, generator)
    return distort(images, generator) if kind == "distort" else images


def plain_views_note(name: str, augment: str, degrees: float) -> str:
    """Return a note for the start of a run without crops and flips; "" for all other runs.

    Args:
        name: Name of the client plugin.
        augment: The configured ``local.augment``.
        degrees: Largest angle by which the weak view is turned.
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
    """Yield each batch as one batch of 2B images: the weak views, then the strong views.

    The weak view is the batch's image, turned. The strong view has a new crop and flip by
    ``augment``, from the original pixels if the batch has them, else from the batch's images.

    Args:
        data: Client data that hold the mean and standard deviation of the pixels.
        batches: Batches of images float32 (B, Ch, H, W), normalised; not changed.
        generator: CPU generator. Per batch: the turns, the crops and flips, the strong views.
        augment: The configured ``local.augment``.
        degrees: Largest angle of the weak views, see :func:`turned`.
        strong: Kind of the strong views, see :func:`single_view`.
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
