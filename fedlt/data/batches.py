"""Seeded mini-batches of a client's images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from fedlt.data.arrays import FloatArray, IntArray
from fedlt.data.augment import augment as augment_images
from fedlt.data.augment import normalize
from fedlt.machine.maps import MappedTensor

if TYPE_CHECKING:
    from fedlt.config import LocalConfig

_BLOCK = 2**16  # pixel values normalised by one call, if batches are smaller


def epoch_order(n: int, generator: torch.Generator) -> Tensor:
    """Return a random order of 0 .. n-1, int64 (n,)."""
    return torch.randperm(n, generator=generator)


def batch_slices(n: int, batch_size: int) -> list[slice]:
    """Return slices that cut n images into batches; the last batch may be smaller.

    A last batch of a single image joins the batch before, which then has ``batch_size`` + 1 images,
    since BatchNorm fails or degenerates on a single image. Example: 9 images in batches of 4 give
    batches of 4 and 5. A single image stays alone if there is no other batch, or if ``batch_size``
    is 1.

    Args:
        n: Number of images; 0 gives no batch.
        batch_size: At least 1.
    """
    starts = list(range(0, n, batch_size))
    if batch_size > 1 and len(starts) > 1 and n - starts[-1] == 1:
        starts.pop()
    return [slice(a, b) for a, b in zip(starts, [*starts[1:], n], strict=False)]


def passes_of(sizes: IntArray, local: LocalConfig) -> FloatArray:
    """Return the passes over each client's images in its task of a round (K,), in plain batches.

    Args:
        sizes: (K,) training images.
        local: How a client trains.
    """
    batches = [len(batch_slices(int(size), local.batch_size)) for size in sizes]
    return np.array([local.task_steps(number) / max(1, number) for number in batches])


def make_batches(
    images: Tensor | MappedTensor,
    indices: Tensor,
    *,
    batch_size: int,
    augment: str,
    mean: Sequence[float] | Tensor,
    std: Sequence[float] | Tensor,
    generator: torch.Generator,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield one epoch of shuffled, augmented, normalised batches.

    The generator is read in this order: :func:`epoch_order`, then batch by batch
    :func:`fedlt.data.augment.augment`. Floats in memory at a time: one batch, or up to 256 KiB.

    Args:
        images: uint8 or float32 (N, Ch, H, W), shared and never written, on any device.
        indices: int64 (n,), rows of the client's images, on the CPU.
        batch_size: Images per batch.
        augment: Scheme, see :func:`fedlt.data.augment.augment`.
        mean: (Ch,), mean of pixel / 255.
        std: (Ch,), standard deviation of pixel / 255.
        generator: CPU generator.

    Yields:
        Images float32 (B, Ch, H, W), and their rows in ``images``, int64 (B,).
    """
    device = images.device
    mean = torch.as_tensor(mean, dtype=torch.float32, device=device)
    std = torch.as_tensor(std, dtype=torch.float32, device=device)
    order = indices[epoch_order(len(indices), generator)].to(device, non_blocking=True)
    parts = batch_slices(len(order), batch_size)
    together = 1  # batches made by one call: several if images are tiny and not augmented
    if augment == "none":
        together = max(1, _BLOCK // max(1, batch_size * images.shape[1:].numel()))
    for first in range(0, len(parts), together):
        block = parts[first : first + together]
        start = block[0].start
        chosen = order[start : block[-1].stop]
        pixels = augment_images(images.index_select(0, chosen), augment, generator)
        pixels = normalize(pixels, mean, std)
        for part in block:
            own = slice(part.start - start, part.stop - start)
            yield pixels[own], chosen[own]
