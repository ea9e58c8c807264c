"""Hold out images before training: a digits test set, or the validation set of ``tune``."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedlt.data.longtail import by_class
from fedlt.errors import FedltError

__all__ = ["hold_out", "validation_size"]

_HOLD_OUT_SEED = 1  # not 0, which chooses the long tail


def hold_out(
    labels: NDArray[np.int64], num_classes: int, per_class: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Hold out ``per_class`` images of every class, the same ones for every run seed.

    NumPy's legacy generator with seed 1 shuffles the indices of class 0, class 1, ... in turn;
    the first ``per_class`` of each are held out.

    Args:
        labels: (N,) classes of the pool.
        num_classes: C.
        per_class: Images a class to hold out.

    Returns:
        Positions held out and positions left, both ascending int64.

    Raises:
        FedltError: If a class would have no image left.
    """
    counts = np.bincount(labels, minlength=num_classes)
    if counts.min() <= per_class:
        raise FedltError(
            f"data.split: tune holds out {per_class} images a class, but class"
            f" {int(counts.argmin())} has {counts.min()}"
        )
    rng = np.random.RandomState(_HOLD_OUT_SEED)
    held = np.zeros(len(labels), bool)
    for positions in by_class(labels, num_classes):
        rng.shuffle(positions)
        held[positions[:per_class]] = True
    return np.flatnonzero(held), np.flatnonzero(~held)


def validation_size(class_counts: NDArray[np.int64], per_class: int | None) -> int:
    """Return the images a class that ``tune`` holds out.

    Args:
        class_counts: (C,) images of the pool.
        per_class: The data set's own number, or None for a tenth of the smallest class, at
            least 1.
    """
    return max(1, int(class_counts.min()) // 10) if per_class is None else per_class
