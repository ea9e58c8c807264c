"""The clients' local tests: the test set re-weighted by each client's own class mix.

The personal accuracy of client k is ``sum over c of w_kc a_k(c)``, where a_k(c) is the recall of
the client's model on test images of class c. The view defines the weights w_kc and the images for
a_k(c):

    exact      w_kc = n_kc / n_k, all test images of c: no sampling, no rounding
    sampled    m_kc images of c are drawn in proportion; w_kc = m_kc / m_k, on the drawn images
    reference  t_kc = floor(T n_kc / N), at most the test images of c; w_kc = t_kc / t_k, all test
               images of c
    own        w_kc = n_kc / n_k over the classes of which the client has test images, on these

Here n_kc are the client's training images of class c, N those of all clients and classes, and T the
number of test images. For a class without test images, n_kc counts as 0, and the client's other
classes get its weight. ``reference`` is FedLoGe's rule (Xiao et al., ICLR 2024): small classes get
weight zero, large clients get large tests, and the mask of classes with t_kc > 0 uses test labels.
Only under ``own`` do test images belong to clients: by nature, as a user's own photos do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from fedlt.data.arrays import BoolArray, FloatArray, IntArray
from fedlt.data.shots import ShotGroups, cumulative_groups
from fedlt.errors import FedltError, nearest
from fedlt.rng import numpy_generator

REFERENCE_WARNING = (
    "evaluate.local_test: reference masks predictions with test labels and drops small classes; "
    "compare its figures with FedLoGe's logs only"
)


@dataclass(frozen=True)
class LocalTest:
    """One view of the clients' local tests; a value, the same in every process."""

    scheme: Literal["exact", "sampled", "reference", "own"]
    client_counts: IntArray  # (K, C) training images n_kc
    test_counts: IntArray  # (C,) images per class in the test set
    local_counts: IntArray  # (K, C) n_kc, m_kc or t_kc; weights are proportional to these
    seed: int = 0  # seed of the draw of ``sampled``
    own_counts: IntArray | None = None  # (K, C) test images that belong to each client; for ``own``

    @property
    def num_clients(self) -> int:
        """Number of clients in the population, K."""
        return len(self.client_counts)

    @property
    def weights(self) -> FloatArray:
        """Class weights w_kc (K, C); rows sum to 1, or to 0 for a client with an empty view."""
        return self.weights_of(np.arange(self.num_clients))

    def weights_of(self, cids: IntArray) -> FloatArray:
        """Return the rows (E, C) of :attr:`weights` for some clients."""
        counts = self.local_counts[cids]
        total = counts.sum(axis=1, keepdims=True)
        weights: FloatArray = counts / np.maximum(total, 1)
        return weights

    @property
    def scored_images(self) -> IntArray:
        """Number of test images behind each a_k(c), (K, C): the denominators of the recalls."""
        if self.scheme == "sampled":
            return self.local_counts
        if self.own_counts is not None:
            return self.own_counts
        return np.broadcast_to(self.test_counts, self.client_counts.shape)

    @property
    def tested(self) -> BoolArray:
        """Mask (K, C) of the classes that have test images for a client."""
        counts = self.test_counts if self.own_counts is None else self.own_counts
        return np.broadcast_to(counts > 0, self.client_counts.shape)

    def test_mask(self, cid: int) -> BoolArray | None:
        """Return the mask (C,) of classes in a client's local test for ``reference``, else None."""
        return self.local_counts[cid] > 0 if self.scheme == "reference" else None

    def groups(self, cid: int, shots: ShotGroups) -> ShotGroups:
        """Return a client's class groups: the run's; for ``reference`` cumulative ones of t_kc."""
        return cumulative_groups(self.local_counts[cid]) if self.scheme == "reference" else shots


def floor_counts(client_counts: npt.ArrayLike, num_images: int) -> IntArray:
    """Return t_kc = floor(num_images * n_kc / N), not yet capped at the test images; (K, C)."""
    counts = np.asarray(client_counts, dtype=np.int64)
    return num_images * counts // max(int(counts.sum()), 1)


def proportional_counts(counts: npt.ArrayLike, pool: npt.ArrayLike, *, seed: int) -> IntArray:
    """Return the number of images of each class in the clients' ``sampled`` local tests.

    A client's test is the largest one that keeps the client's class mix q without drawing an image
    twice. Its size M = floor(min over c of pool_c / q_c) is divided among classes by largest
    remainders. Ties are broken at random for each client, so that no class gains by its id.

    Args:
        counts: (K, C) training images of all clients, or (C,) of one client.
        pool: (C,) test images per class.
        seed: Seed of the order of ties.

    Returns:
        int64 of the same shape; each client's row sums to M, and no entry is above the pool. The
        row of a client without images is zero.
    """
    limit = np.asarray(pool, dtype=np.int64)
    held = np.where(limit > 0, np.asarray(counts, dtype=np.int64), 0)
    total = held.sum(axis=-1, keepdims=True)
    bounds = limit * total // np.maximum(held, 1)
    size = np.where(held > 0, bounds, np.iinfo(np.int64).max).min(axis=-1, keepdims=True)
    size = np.where(total > 0, size, 0)
    shares, remainders = np.divmod(held * size, np.maximum(total, 1))
    chance = numpy_generator(seed, "local-test-ties").random(remainders.shape)
    order = np.lexsort((chance, -remainders), axis=-1)
    rank = np.argsort(order, axis=-1, kind="stable")
    missing = size - shares.sum(axis=-1, keepdims=True)
    result: IntArray = shares + (rank < missing)
    return result


def local_test(
    client_counts: npt.ArrayLike,
    test_counts: npt.ArrayLike,
    *,
    scheme: str = "exact",
    seed: int = 0,
    own_counts: npt.ArrayLike | None = None,
) -> LocalTest:
    """Return a view of the clients' local tests. Classes without a test image have weight 0.

    Args:
        client_counts: (K, C) training images per client and class.
        test_counts: (C,) images per class in the test (or validation) set.
        scheme: ``exact``, ``sampled``, ``reference`` or ``own``.
        seed: The run's seed; every method with this seed has the same images for ``sampled``.
        own_counts: (K, C) test images that belong to each client; needed for ``own`` only.

    Raises:
        FedltError: For an unknown scheme, or ``own`` where no test image belongs to a client.
    """
    counts = np.asarray(client_counts, dtype=np.int64)
    pool = np.asarray(test_counts, dtype=np.int64)
    if scheme == "exact":
        kept = counts if pool.all() else np.where(pool > 0, counts, 0)
        return LocalTest("exact", counts, pool, kept, seed)
    if scheme == "sampled":
        drawn = proportional_counts(counts, pool, seed=seed)
        return LocalTest("sampled", counts, pool, drawn, seed)
    if scheme == "reference":
        kept = np.minimum(floor_counts(counts, int(pool.sum())), pool)
        return LocalTest("reference", counts, pool, kept, seed)
    if scheme == "own":
        if own_counts is None:
            raise FedltError("evaluate.local_test: own needs test images that belong to clients")
        own = np.asarray(own_counts, dtype=np.int64)
        return LocalTest("own", counts, pool, np.where(own > 0, counts, 0), seed, own)
    known = ("exact", "sampled", "reference", "own")
    raise FedltError(f"evaluate.local_test: unknown view {scheme!r}{nearest(scheme, known)}")


def _draw(labels: IntArray, counts: IntArray, generator: np.random.Generator) -> IntArray:
    """Return ``counts[c]`` rows of each class c, drawn without replacement, sorted."""
    parts = [
        generator.choice(np.flatnonzero(labels == c), counts[c], replace=False)
        for c in np.flatnonzero(counts)
    ]
    return np.sort(np.concatenate([np.empty(0, dtype=np.int64), *parts]))


def draw_images(view: LocalTest, cid: int, labels: npt.ArrayLike) -> IntArray | None:
    """Return the rows of a client's test images for the view ``sampled``; None for other views.

    The images depend on the seed and the client only, not on round, method or engine.

    Args:
        view: The view.
        cid: The client.
        labels: (B,) labels of the test set.

    Returns:
        (M,) sorted int64 rows; None if the view uses all images.
    """
    if view.scheme != "sampled":
        return None
    generator = numpy_generator(view.seed, "local-test", cid)
    return _draw(np.asarray(labels, dtype=np.int64), view.local_counts[cid], generator)


def cap_images(labels: npt.ArrayLike, per_class: int, *, seed: int) -> IntArray:
    """Return the sorted rows of at most ``per_class`` images of each class, drawn at random.

    The cap makes personal evaluations cheaper. All methods with one seed get the same images.

    Args:
        labels: (B,) labels of the test set.
        per_class: Largest number of images per class, >= 1.
        seed: Seed of the draw.
    """
    array = np.asarray(labels, dtype=np.int64)
    counts = np.minimum(np.bincount(array), per_class)
    return _draw(array, counts, numpy_generator(seed, "test-cap"))


def evaluated_clients(num_clients: int, clients: Literal["all"] | int, *, seed: int) -> IntArray:
    """Return the sorted ids of the clients whose personal models are scored.

    Args:
        num_clients: K.
        clients: ``"all"``, or a number of clients to draw at random; a number above K means all.
        seed: The run's seed; rounds and methods with one seed score the same clients.
    """
    if clients == "all" or clients >= num_clients:
        return np.arange(num_clients, dtype=np.int64)
    chosen = numpy_generator(seed, "evaluated-clients").choice(num_clients, clients, replace=False)
    return np.sort(chosen.astype(np.int64))
