"""Data of a run, made from the configuration in these steps.

data set -> hold out (tune) -> long tail -> partition over clients
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedlt.data.arrays import Images, IntArray, Pixels, chosen_rows, read_only
from fedlt.data.dataset import Dataset, holds_features
from fedlt.data.datasets import load_dataset
from fedlt.data.dealing import deal
from fedlt.data.longtail import long_tail
from fedlt.data.natural_clients import NaturalClients
from fedlt.data.partition import Partition
from fedlt.data.splits import hold_out, validation_sizes
from fedlt.errors import FedltError, nearest, shortened

if TYPE_CHECKING:
    from fedlt.config import DataConfig, PartitionConfig

SPLITS = ("final", "tune")
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # channel means and deviations
_NAMED = 10  # largest number of classes that a line names
_STRANGERS = 3  # largest number of clients that a line names


@dataclass(frozen=True, eq=False)
class FederatedData:
    """Training and evaluation data of a run; read-only arrays, shared without copies.

    Images of a data set in memory are NumPy arrays. Images of a memory map stay in the map: they
    are :class:`fedlt.machine.maps.MappedRows`, of which ``images[rows]`` is an array.
    """

    name: str  # name of the data set
    num_classes: int  # C
    mean: tuple[float, ...]  # (Ch,), mean of pixel / 255; of floats, of the value itself
    std: tuple[float, ...]  # (Ch,), standard deviation likewise
    class_names: tuple[str, ...]  # (C,)
    split: str  # final: scored on the test set; tune: on the validation set
    train_images: Images  # (N, Ch, H, W), training images after the long-tail draw
    train_labels: NDArray[np.int64]  # (N,)
    eval_images: Images  # (M, Ch, H, W), test or validation images
    eval_labels: NDArray[np.int64]  # (M,)
    pool_indices: NDArray[np.int64]  # (N,), rows in the data set's training pool
    pool_counts: NDArray[np.int64]  # (C,), class counts of the pool before the long-tail draw
    partition: Partition  # rows of each client in the N training images
    class_counts: NDArray[np.int64]  # (C,), class counts over all clients
    client_counts: NDArray[np.int64]  # (K, C), class counts of each client
    eval_clients: NDArray[np.int64] | None = None  # (M,) cid whose own image it is; -1: nobody's
    client_names: tuple[str, ...] = ()  # (K,) names of natural clients; () for drawn clients
    partition_notes: tuple[str, ...] = ()  # lines about images without a client, users, the file
    strangers: Mapping[str, int] = field(default_factory=dict)  # see :func:`strangers_note`

    def __post_init__(self) -> None:
        for name, value in list(vars(self).items()):
            if isinstance(value, np.ndarray):
                object.__setattr__(self, name, read_only(value))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape (Ch, H, W) of an image; (d, 1, 1) of a feature vector."""
        channels, height, width = self.train_images.shape[1:]
        return channels, height, width

    @property
    def is_features(self) -> bool:
        """Whether the images are feature vectors."""
        return holds_features(self.train_images)

    @cached_property
    def client_sizes(self) -> NDArray[np.int64]:
        """Number of training images of each client (K,)."""
        return self.partition.sizes()

    def note(self) -> str:
        """Return one line of warning if an unequal pool was cut to the size of its smallest class.

        The line is "" if the pool is used as it stands, or if its largest class has less than 1.5
        times the images of its smallest class.
        """
        known_counts = self.pool_counts[self.pool_counts > 0]
        low, high = int(known_counts.min()), int(known_counts.max())
        used, known = len(self.train_labels), int(self.pool_counts.sum())
        if used == known or 2 * high < 3 * low:
            return ""
        return (
            f"the pool of {self.name} has {low} to {high} images a class; the long tail is drawn "
            f"from {low} of each, and {used:,} of {known:,} images are used (a data set read from "
            "files, or made with long_tailed=True, is used as it stands with imbalance_factor 1)"
        )

    def strangers_note(self, *, named: bool) -> str:
        """Return :func:`strangers_note` of the scored images."""
        words = "test" if self.split == "final" else "validation"
        return strangers_note(self.strangers, words, named=named)

    def missing_note(self) -> str:
        """Return one line that names the classes without a training image; "" if there is none."""
        missing = np.flatnonzero(self.class_counts == 0)
        if not len(missing):
            return ""
        names = ", ".join(self.class_names[label] for label in missing[:_NAMED])
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        has, weighs = ("has", "weighs") if len(missing) == 1 else ("have", "weigh")
        line = f"{len(missing)} of {self.num_classes} classes {has} no training image"
        tested = int(np.isin(self.eval_labels, missing).sum())
        if tested:
            return f"{line} ({names}{more}); {tested:,} scored images are of such classes"
        return f"{line} ({names}{more}) and {weighs} nothing: no client and no shot group has one"


def strangers_note(strangers: Mapping[str, int], part: str, *, named: bool) -> str:
    """Return a line about images whose natural clients have no training images; "" if none are.

    Args:
        strangers: Id of such a client -> its images in the part.
        part: Name of the part: ``test`` or ``validation``.
        named: Whether the line has ids; files of a run may not (docs/partitions.md).
    """
    if not strangers:
        return ""
    line = f"{sum(strangers.values()):,} {part} images belong to clients without training images"
    if not named:
        return line
    known = [repr(shortened(name)) for name in list(strangers)[:_STRANGERS]]
    more = f" and {len(strangers) - len(known)} more" if len(strangers) > len(known) else ""
    return f"{line}: {', '.join(known)}{more}"


def prepare_data(
    data: DataConfig, partition: PartitionConfig, *, seed: int, source: Dataset | None = None
) -> FederatedData:
    """Return the data of a run: data set, split, long tail and partition.

    Training images are ordered class by class, in the order of :func:`canonical_subset`; those of
    a data set that is long-tailed already keep their order. The partition depends on the seed.
    Split and long tail do not, unless ``data.class_order`` is ``shuffled``.

    Args:
        data: Section ``data`` of the configuration.
        partition: Section ``partition`` of the configuration.
        seed: The run's seed.
        source: The data set, if loaded already.

    Raises:
        FedltError: If the data set cannot be loaded, or a number in the two sections does not fit.
    """
    if source is None:
        source = load_dataset(data.dataset, root=data.root, options=data.options)
    pool, scored = _split(source, data.split)
    chosen = pool[_long_tail(source, source.train_labels[pool], data, seed)]
    labels = source.train_labels[chosen]
    mean, std = _normalisation(source, data.normalisation)
    users = None if source.train_clients is None else source.train_clients[chosen]
    hint = source.client_hint
    dealt = deal(labels, source.num_classes, partition, seed=seed, users=users, hint=hint)
    natural, counts = dealt.natural, dealt.partition.counts(labels)
    return FederatedData(
        name=source.name,
        num_classes=source.num_classes,
        mean=mean,
        std=std,
        class_names=source.class_names,
        split=data.split,
        train_images=chosen_rows(source.train_images, chosen),
        train_labels=labels,
        eval_images=scored.images,
        eval_labels=scored.labels,
        pool_indices=chosen,
        pool_counts=np.bincount(source.train_labels[pool], minlength=source.num_classes),
        partition=dealt.partition,
        class_counts=counts.sum(axis=0),
        client_counts=counts,
        eval_clients=_own(natural, scored.clients),
        client_names=natural.names(source.client_names) if natural else (),
        partition_notes=dealt.notes,
        strangers=scored.strangers if natural else {},
    )


def _normalisation(
    source: Dataset, normalisation: str
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and the deviation by which images are normalised.

    Raises:
        FedltError: If ImageNet's are asked for, and images have not three channels.
    """
    if normalisation == "own":
        return source.mean, source.std
    if source.is_features or source.image_shape[0] != 3:
        what = "features" if source.is_features else f"images of {source.image_shape[0]} channels"
        raise FedltError(
            f"data.normalisation: imagenet is for images of 3 channels; {source.name!r} has {what}"
        )
    return IMAGENET


def _own(natural: NaturalClients | None, users: IntArray | None) -> IntArray | None:
    """Return the cids of scored images (M,) from their users; None where they are unknown."""
    return None if natural is None or users is None else natural.cids_of(users)


class _Scored(NamedTuple):
    """Images that a run is scored on."""

    images: Images  # (M, Ch, H, W)
    labels: IntArray  # (M,)
    clients: IntArray | None  # (M,) natural clients, where the data set says them
    strangers: Mapping[str, int]  # id of a client without training images -> its images


def _split(source: Dataset, split: str) -> tuple[IntArray, _Scored]:
    """Return the rows of the training pool to train on, and the images to score on."""
    if split not in SPLITS:
        raise FedltError(f"data.split: unknown {split!r}{nearest(split, SPLITS)}")
    labels, clients = source.train_labels, source.train_clients
    everything = np.arange(len(labels))
    if split == "final":
        tests = _all_rows(source.test_images)
        strangers = source.strangers.get("test", {})
        return everything, _Scored(tests, source.test_labels, source.test_clients, strangers)
    if source.validation_images is not None and source.validation_labels is not None:
        own = _all_rows(source.validation_images)
        strangers = source.strangers.get("validation", {})
        clients = source.validation_clients
        return everything, _Scored(own, source.validation_labels, clients, strangers)
    counts = np.bincount(labels, minlength=source.num_classes)
    sizes = validation_sizes(counts, source.validation_per_class, long_tailed=source.long_tailed)
    held, rest = hold_out(labels, source.num_classes, sizes)
    owners = None if clients is None else clients[held]
    return rest, _Scored(chosen_rows(source.train_images, held), labels[held], owners, {})


def _all_rows(images: Pixels) -> Images:
    return chosen_rows(images, np.arange(len(images)))


def _long_tail(
    source: Dataset, labels: NDArray[np.int64], data: DataConfig, seed: int
) -> NDArray[np.int64]:
    """Return the rows of ``labels`` to train on, after the long-tail draw."""
    if not source.long_tailed or data.imbalance_factor > 1:
        try:
            return long_tail(
                labels,
                source.num_classes,
                imbalance_factor=data.imbalance_factor,
                profile=data.profile,
                class_order=data.class_order,
                seed=seed,
            )
        except FedltError as error:
            if not source.long_tailed:
                raise
            raise FedltError(
                f"{error}; with data.imbalance_factor 1 the pool of {source.name!r} is used as it"
                " stands"
            ) from error
    for key, plain in (("profile", "exponential"), ("class_order", "natural")):
        if getattr(data, key) != plain:
            raise FedltError(
                f"data.{key}: {source.name!r} is long-tailed already and, with"
                f" data.imbalance_factor 1, used as it stands; it must be {plain} here"
            )
    return np.arange(len(labels))
