"""Hold out images before training: a digits test set, or the validation set of ``tune``."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedlt.data.longtail import by_class
from fedlt.errors import FedltError

_HOLD_OUT_SEED = 1  # not 0, which chooses the long tail
_LEAST = 5  # images of a class of which some can be held out of a natural long tail


def hold_out(
    labels: NDArray[np.int64], num_classes: int, per_class: int | NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Hold out some images of every class, the same ones for every run seed.

    NumPy's legacy generator with seed 1 shuffles the indices of class 0, class 1, ... in turn;
    the first ``per_class`` of each are held out.

    Args:
        labels: (N,) classes of the pool.
        num_classes: C.
        per_class: Images to hold out, one number for all classes or (C,).

    Returns:
        Positions held out and positions left, both ascending int64.

    Raises:
        FedltError: If a class of which images are held out would have none left.
    """
    counts = np.bincount(labels, minlength=num_classes)
    wanted = np.broadcast_to(per_class, num_classes)
    short = np.flatnonzero((wanted > 0) & (counts <= wanted))
    if short.size:
        rarest = int(short[counts[short].argmin()])
        raise FedltError(
            f"data.split: tune holds out {wanted[rarest]} images a class, but class"
            f" {rarest} has {counts[rarest]}"
        )
    rng = np.random.RandomState(_HOLD_OUT_SEED)
    held = np.zeros(len(labels), bool)
    for size, positions in zip(wanted, by_class(labels, num_classes), strict=True):
        rng.shuffle(positions)
        held[positions[:size]] = True
    return np.flatnonzero(held), np.flatnonzero(~held)


def validation_sizes(
    class_counts: NDArray[np.int64], per_class: int | None, *, long_tailed: bool
) -> NDArray[np.int64]:
    """Return how many images of each class ``tune`` holds out (C,).

    All classes alike where the long tail is drawn afterwards: the data set's own number, or a
    tenth of the smallest class, at least 1. A pool that is a long tail already, without a number of
    its own, gives a tenth of each class of at least 5 images, at least 1; the other classes give
    none and are not scored.

    Args:
        class_counts: (C,) images of the pool.
        per_class: The data set's own number, or None.
        long_tailed: The pool is used as it stands.

    Raises:
        FedltError: If no class of a long-tailed pool has 5 images.
    """
    if per_class is None and long_tailed:
        sizes = np.where(class_counts >= _LEAST, np.maximum(class_counts // 10, 1), 0)
        if not sizes.any():
            raise FedltError(
                f"data.split: tune holds out a tenth of each class of at least {_LEAST} images;"
                f" the largest class here has {class_counts.max()}"
            )
        return sizes
    if per_class is None:
        per_class = max(1, int(class_counts.min()) // 10)
    return np.full(len(class_counts), per_class)
