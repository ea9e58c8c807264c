"""Images held out before training: the test set of digits, or the validation set of ``tune``."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedlt.data.longtail import by_class
from fedlt.errors import FedltError

_HOLD_OUT_SEED = 1  # differs from 0, the seed that chooses the long tail
_LEAST = 5  # smallest class of a natural long tail from which images are held out


def hold_out(
    labels: NDArray[np.int64], num_classes: int, per_class: int | NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows held out of a pool and the rows left, the same for every run seed.

    NumPy's legacy generator with seed 1 shuffles the rows of class 0, class 1, ... in turn. The
    first ``per_class`` shuffled rows of each class are held out.

    Args:
        labels: (N,) classes of the pool.
        num_classes: C.
        per_class: Images to hold out per class, one number for all classes or (C,).

    Returns:
        Rows held out and rows left, both ascending int64.

    Raises:
        FedltError: If a class would lose all of its images.
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
    """Return the number of images of each class that ``tune`` holds out (C,).

    All classes get the same number: ``per_class`` if given, else a tenth of the smallest class, at
    least 1; classes without an image get 0. Exception: in a pool that is long-tailed already,
    without ``per_class``, each class of at least 5 images gets a tenth of its size, at least 1;
    smaller classes get 0 and are not scored.

    Args:
        class_counts: (C,) images per class of the pool.
        per_class: The data set's own number, or None.
        long_tailed: Whether the pool is long-tailed already and used as it stands.

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
        per_class = max(1, int(class_counts[class_counts > 0].min()) // 10)
    return np.where(class_counts > 0, per_class, 0)
