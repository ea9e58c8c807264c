"""Long-tail profiles, and the choice of images for each class.

Profiles and choice are those of K. Cao et al., "Learning Imbalanced Datasets with
Label-Distribution-Aware Margin Loss", NeurIPS 2019, https://arxiv.org/abs/1906.07413. The choice
does not depend on the run's seed: each data set and profile has one list of images. A smaller class
size takes the first images of the list for a larger size.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedlt.errors import FedltError, nearest
from fedlt.rng import numpy_generator

PROFILES = ("exponential", "step")
CLASS_ORDERS = ("natural", "shuffled")


def class_sizes(
    profile: str, n_max: int, imbalance_factor: float, num_classes: int
) -> NDArray[np.int64]:
    """Return class sizes by rank, the largest class first.

    ``exponential``: rank r of C gets ``int(n_max * (1 / IF) ** (r / (C - 1)))`` images. ``step``:
    the first C // 2 ranks get ``n_max`` images, the others ``int(n_max / IF)``.

    Args:
        profile: ``exponential`` or ``step``.
        n_max: Images of the largest class.
        imbalance_factor: IF >= 1, size of the largest class / size of the smallest.
        num_classes: C, at least 2.

    Returns:
        int64 (C,), each at least 1.

    Raises:
        FedltError: If IF < 1, or a class would get no image, or the profile is unknown.
    """
    if not 1 <= imbalance_factor < np.inf:
        raise FedltError(
            f"data.imbalance_factor: {imbalance_factor:g} is below 1 or not finite; it is largest"
            " / smallest class, such as 100"
        )
    small = 1 / imbalance_factor
    if profile == "exponential":
        shares = [small ** (rank / (num_classes - 1)) for rank in range(num_classes)]
    elif profile == "step":
        shares = [1.0 if rank < num_classes // 2 else small for rank in range(num_classes)]
    else:
        raise FedltError(f"data.profile: unknown {profile!r}{nearest(profile, PROFILES)}")
    sizes = np.array([int(n_max * share) for share in shares], np.int64)
    if sizes.min() < 1:
        raise FedltError(
            f"data.imbalance_factor: {imbalance_factor:g} leaves a class without images, as the"
            f" largest has {n_max}; at most {n_max} here"
        )
    return sizes


def class_ranks(num_classes: int, class_order: str, seed: int) -> NDArray[np.int64]:
    """Return the size rank of each class (C,): ``natural`` 0 .. C-1, ``shuffled`` by the seed.

    Raises:
        FedltError: If the class order is unknown.
    """
    if class_order == "natural":
        return np.arange(num_classes)
    if class_order == "shuffled":
        return numpy_generator(seed, "class_order").permutation(num_classes)
    raise FedltError(
        f"data.class_order: unknown {class_order!r}{nearest(class_order, CLASS_ORDERS)}"
    )


def canonical_subset(
    labels: NDArray[np.int64], class_counts: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the rows of ``class_counts[c]`` images of each class c, the same for every seed.

    NumPy's legacy generator with seed 0 shuffles the rows of class 0, class 1, ... in turn. The
    first ``class_counts[c]`` shuffled rows of class c are taken.

    Args:
        labels: (N,) classes of the pool.
        class_counts: (C,) images wanted, at most as many as the class has.

    Returns:
        int64 (sum of class_counts,) rows in ``labels``, class by class, in shuffled order.
    """
    rng = np.random.RandomState(0)
    chosen = []
    for wanted, positions in zip(class_counts, by_class(labels, len(class_counts)), strict=True):
        rng.shuffle(positions)
        chosen.append(positions[:wanted])
    return np.concatenate(chosen)


def by_class(labels: NDArray[np.int64], num_classes: int) -> list[NDArray[np.int64]]:
    """Return the ascending rows of each class, a list of C arrays of int64."""
    order = np.argsort(labels, kind="stable")
    ends = np.cumsum(np.bincount(labels, minlength=num_classes))
    return [part.copy() for part in np.split(order, ends[:-1])]


def long_tail(
    labels: NDArray[np.int64],
    num_classes: int,
    *,
    imbalance_factor: float,
    profile: str,
    class_order: str,
    seed: int,
) -> NDArray[np.int64]:
    """Return the rows of a long-tailed subset of a pool.

    The largest class of the subset is as large as the smallest class of the pool, so every profile
    fits every class order (CIFAR-10: 5,000 images; digits, slightly unbalanced: 124). An imbalance
    factor of 1 hence gives a balanced set. Classes without an image stay without and have no rank.

    Args:
        labels: (N,) classes of the pool; at least two of them.
        num_classes: C.
        imbalance_factor: Largest / smallest class, at least 1.
        profile: ``exponential`` or ``step``.
        class_order: ``natural`` or ``shuffled``, see :func:`class_ranks`.
        seed: The run's seed; only ``shuffled`` depends on the seed.

    Returns:
        int64 rows in ``labels``, class by class.

    Raises:
        FedltError: See :func:`class_sizes` and :func:`class_ranks`.
    """
    counts = np.bincount(labels, minlength=num_classes)
    held = np.flatnonzero(counts)
    sizes = class_sizes(profile, int(counts[held].min()), imbalance_factor, len(held))
    wanted = np.zeros(num_classes, np.int64)
    wanted[held] = sizes[class_ranks(len(held), class_order, seed)]
    return canonical_subset(labels, wanted)
