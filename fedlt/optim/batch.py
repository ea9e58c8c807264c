"""Training data of one client, mini-batches, and the arguments of one training phase."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from fedlt.machine.maps import MappedTensor
from fedlt.update import Tensors

ImageTensor = Tensor | MappedTensor  # images[rows] is a tensor; a memory map offers little more


@dataclass(frozen=True)
class Batch:
    """One mini-batch, as an objective sees it.

    ``origin`` leads back to the images before augmentation, for views that crop them again. For
    images that are not in the data, such as mixtures, ``origin`` is None.

    Four names in ``extra`` have a meaning for every loss, (B,) each:

    * ``weights``: factors of the images' losses;
    * ``mixed`` and ``share``: the second class of a mixed image, and the share of its first class;
    * ``own``: factors for losses on the client's own images; 0 for other (synthetic) images.
    """

    images: Tensor  # (B, Ch, H, W) float32, normalised
    labels: Tensor  # (B,) int64
    extra: Tensors = field(default_factory=dict)  # further views or weights, first dimension B
    origin: tuple[ImageTensor, Tensor] | None = None  # images (N, Ch, H, W), and rows (B,)

    @property
    def pixels(self) -> Tensor | None:
        """The images before ``local.augment``, (B, Ch, H, W); None without an ``origin``."""
        if self.origin is None:
            return None
        images, rows = self.origin
        return images.index_select(0, rows)

    def viewed(self, images: Tensor) -> Batch:
        """Return V views of the images, (V * B, Ch, H, W) view after view, as one batch.

        Labels and extras are repeated for every view; the batch has no ``origin``.
        """
        times = len(images) // len(self.labels)
        extra = {n: t.repeat(times, *[1] * (t.ndim - 1)) for n, t in self.extra.items()}
        return Batch(images, self.labels.repeat(times), extra)


@dataclass(frozen=True)
class ClientData:
    """One client's share of the data set. All clients share the memory of ``images``."""

    images: ImageTensor  # (N, Ch, H, W) uint8 or float32: the whole training set; never written
    labels: Tensor  # (N,) int64; never written
    indices: Tensor  # (n,) int64: rows of this client in images and labels
    class_counts: Tensor  # (C,) int64
    mean: Tensor  # (Ch,) of pixels / 255; of floats, of the value itself
    std: Tensor  # (Ch,)

    @property
    def num_examples(self) -> int:
        """Number of training images of this client."""
        return len(self.indices)


@dataclass(frozen=True)
class Phase:
    """Arguments of one training phase: one call of ``Client.train``."""

    objective: Callable[..., Tensor]  # (client, batch) -> mean loss of the batch
    epochs: int | None  # passes over the client's data; None: the whole task, as the file says
    trained: tuple[str, ...]  # names of the parameters to train, in the model's order
    no_decay: tuple[str, ...] = ()  # prefixes of parameters that get no weight decay
    schedule: Schedule | None = None  # factor of every learning rate; None: always 1
    ascent: float = 0.0  # SAM's rho: the gradient is taken this far uphill
    batches: tuple[Batch, ...] | None = None  # train on these batches; None: the plugin's batches
    optimizer: str = "sgd"  # sgd or adamw


Schedule = Callable[[int, int], float]  # (step from 0, planned steps) -> factor


def add_metrics(*phases: Mapping[str, float]) -> dict[str, float]:
    """Return metrics added by name over several calls of :meth:`Client.train`."""
    names = dict.fromkeys(name for phase in phases for name in phase)
    return {name: sum(phase.get(name, 0.0) for phase in phases) for name in names}
