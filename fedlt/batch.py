"""A client's share of the data, and the mini-batches that are made of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

from fedlt.data.batches import make_batches
from fedlt.rng import torch_generator
from fedlt.strategy import Tensors

if TYPE_CHECKING:
    from fedlt.client import Client


@dataclass(frozen=True)
class Batch:
    """One mini-batch, as an objective sees it.

    ``origin`` says which images the batch was made of, for views that crop the images anew; None:
    they are not images of the data, such as mixtures.

    Four names in ``extra`` have a meaning for every loss, (B,) each: ``weights``, the factors of
    the images' losses; ``mixed`` and ``share``, a mixed image's other class, and the share of its
    first one; ``own``, further factors where a loss is on the client's own images as it holds them,
    0 for images that are not its own.
    """

    images: Tensor  # (B, Ch, H, W) float32, normalised
    labels: Tensor  # (B,) int64
    extra: Tensors = field(default_factory=dict)  # further views or weights, first dimension B
    origin: tuple[Tensor, Tensor] | None = None  # uint8 images (N, Ch, H, W), and the rows (B,)

    @property
    def pixels(self) -> Tensor | None:
        """The images before ``local.augment``, uint8 (B, Ch, H, W); None where ``origin`` is."""
        if self.origin is None:
            return None
        images, rows = self.origin
        return images.index_select(0, rows)

    def viewed(self, images: Tensor) -> Batch:
        """Return several views (V * B, Ch, H, W) of the images, view by view, as one batch."""
        times = len(images) // len(self.labels)
        extra = {n: t.repeat(times, *[1] * (t.ndim - 1)) for n, t in self.extra.items()}
        return Batch(images, self.labels.repeat(times), extra)


@dataclass(frozen=True)
class ClientData:
    """One client's share of the data set. All clients share the memory of ``images``."""

    images: Tensor  # (N, Ch, H, W) uint8: the whole training set; never written
    labels: Tensor  # (N,) int64; never written
    indices: Tensor  # (n,) int64: this client's positions in both
    class_counts: Tensor  # (C,) int64
    mean: Tensor  # (Ch,) of pixels / 255
    std: Tensor  # (Ch,)

    @property
    def num_examples(self) -> int:
        """The number of training images of this client."""
        return len(self.indices)


def batches_with_rows(
    client: Client, epoch: int, data: ClientData
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield an epoch of batches as :meth:`ClientPlugin.batches` makes them, of any images.

    Args:
        client: Its settings and keys are used, not its data.
        epoch: Of the task.
        data: The images; ``indices`` may name one several times, or not at all.

    Yields:
        Images (B, Ch, H, W), and their positions (B,) in ``data.images``.
    """
    yield from make_batches(
        data.images,
        None,
        data.indices,
        batch_size=client.local.batch_size,
        augment=client.local.augment,
        mean=data.mean,
        std=data.std,
        generator=torch_generator(client.seed, "batches", client.round, client.cid, epoch),
    )
