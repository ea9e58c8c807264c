"""Training data of one client: its share, mini-batches, and one phase of training on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from fedlt.update import Tensors


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


@dataclass(frozen=True)
class Phase:
    """The arguments of one call of ``Client.train``."""

    objective: Callable[..., Tensor]  # (client, batch) -> mean loss of the batch
    epochs: int  # passes over the client's data
    trained: tuple[str, ...]  # the parameters that SGD moves, in the model's order
    no_decay: tuple[str, ...] = ()  # prefixes of parameters that get no weight decay
    schedule: Schedule | None = None  # factor of every learning rate; None: always 1
    ascent: float = 0.0  # SAM's rho: the gradient is taken this far uphill
    batches: tuple[Batch, ...] | None = None  # these, instead of epochs of the plugin's
    optimizer: str = "sgd"  # or adamw


Schedule = Callable[[int, int], float]  # (step from 0, planned steps) -> factor


def add_metrics(*phases: Mapping[str, float]) -> dict[str, float]:
    """Return the sums of what several calls of :meth:`Client.train` returned."""
    names = dict.fromkeys(name for phase in phases for name in phase)
    return {name: sum(phase.get(name, 0.0) for phase in phases) for name in names}
