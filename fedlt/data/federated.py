"""Data of a run, made from the configuration in these steps.

data set -> hold out (tune) -> long tail -> partition over clients
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedlt.data.dataset import Dataset, read_only
from fedlt.data.datasets import load_dataset
from fedlt.data.longtail import long_tail
from fedlt.data.partition import Partition
from fedlt.data.partition_schemes import draw_partition
from fedlt.data.splits import hold_out, validation_sizes
from fedlt.errors import FedltError, nearest

if TYPE_CHECKING:
    from fedlt.config import DataConfig, PartitionConfig

SPLITS = ("final", "tune")


@dataclass(frozen=True, eq=False)
class FederatedData:
    """Training and evaluation data of a run; read-only NumPy arrays, shared without copies."""

    name: str  # name of the data set
    num_classes: int  # C
    mean: tuple[float, ...]  # (Ch,), mean of pixel / 255
    std: tuple[float, ...]  # (Ch,), standard deviation of pixel / 255
    class_names: tuple[str, ...]  # (C,)
    split: str  # final: scored on the test set; tune: on the validation set
    train_images: NDArray[np.uint8]  # (N, Ch, H, W), training images after the long-tail draw
    train_labels: NDArray[np.int64]  # (N,)
    eval_images: NDArray[np.uint8]  # (M, Ch, H, W), test or validation images
    eval_labels: NDArray[np.int64]  # (M,)
    pool_indices: NDArray[np.int64]  # (N,), rows in the data set's training pool
    pool_counts: NDArray[np.int64]  # (C,), class counts of the pool before the long-tail draw
    partition: Partition  # rows of each client in the N training images
    class_counts: NDArray[np.int64]  # (C,), class counts over all clients
    client_counts: NDArray[np.int64]  # (K, C), class counts of each client

    def __post_init__(self) -> None:
        for name, value in list(vars(self).items()):
            if isinstance(value, np.ndarray):
                object.__setattr__(self, name, read_only(value))

    @cached_property
    def client_sizes(self) -> NDArray[np.int64]:
        """Number of training images of each client (K,)."""
        return self.partition.sizes()

    def note(self) -> str:
        """Return one line of warning if an unequal pool was cut to the size of its smallest class.

        The line is "" if the pool is used as it stands, or if its largest class has less than 1.5
        times the images of its smallest class.
        """
        low, high = int(self.pool_counts.min()), int(self.pool_counts.max())
        used, known = len(self.train_labels), int(self.pool_counts.sum())
        if used == known or 2 * high < 3 * low:
            return ""
        return (
            f"the pool of {self.name} has {low} to {high} images a class; the long tail is drawn "
            f"from {low} of each, and {used:,} of {known:,} images are used (a data set made with "
            "long_tailed=True is used as it stands)"
        )


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
    pool, eval_images, eval_labels = _split(source, data.split)
    chosen = pool[_long_tail(source, source.train_labels[pool], data, seed)]
    labels = source.train_labels[chosen]
    drawn = draw_partition(labels, source.num_classes, partition, seed=seed)
    return FederatedData(
        name=source.name,
        num_classes=source.num_classes,
        mean=source.mean,
        std=source.std,
        class_names=source.class_names,
        split=data.split,
        train_images=source.train_images[chosen],
        train_labels=labels,
        eval_images=eval_images,
        eval_labels=eval_labels,
        pool_indices=chosen,
        pool_counts=np.bincount(source.train_labels[pool], minlength=source.num_classes),
        partition=drawn,
        class_counts=np.bincount(labels, minlength=source.num_classes),
        client_counts=drawn.counts(labels),
    )


def _split(
    source: Dataset, split: str
) -> tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.int64]]:
    """Return the rows of the training pool to train on, the evaluation images and their labels."""
    if split not in SPLITS:
        raise FedltError(f"data.split: unknown {split!r}{nearest(split, SPLITS)}")
    labels = source.train_labels
    if split == "final":
        return np.arange(len(labels)), source.test_images, source.test_labels
    if source.validation_images is not None and source.validation_labels is not None:
        return np.arange(len(labels)), source.validation_images, source.validation_labels
    counts = np.bincount(labels, minlength=source.num_classes)
    sizes = validation_sizes(counts, source.validation_per_class, long_tailed=source.long_tailed)
    held, rest = hold_out(labels, source.num_classes, sizes)
    return rest, source.train_images[held], labels[held]


def _long_tail(
    source: Dataset, labels: NDArray[np.int64], data: DataConfig, seed: int
) -> NDArray[np.int64]:
    """Return the rows of ``labels`` to train on, after the long-tail draw."""
    if not source.long_tailed:
        return long_tail(
            labels,
            source.num_classes,
            imbalance_factor=data.imbalance_factor,
            profile=data.profile,
            class_order=data.class_order,
            seed=seed,
        )
    for key, plain in (
        ("imbalance_factor", 1),
        ("profile", "exponential"),
        ("class_order", "natural"),
    ):
        if getattr(data, key) != plain:
            raise FedltError(
                f"data.{key}: {source.name!r} is long-tailed already and used as it stands; "
                f"it must be {plain} here"
            )
    return np.arange(len(labels))
