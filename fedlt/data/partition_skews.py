"""Partition schemes with one kind of skew each: client sizes, local long tails, specialists.

* Quantity: client sizes follow a Dirichlet draw, and all clients have the same class mix; the
  quantity skew of Q. Li et al., "Federated Learning on Non-IID Data Silos: An Experimental Study",
  ICDE 2022, https://arxiv.org/abs/2102.02079.
* Local tails: every client has a long tail of its own, with its own order of classes. Local tails
  of different patterns are a setting of Z. Chen et al., "Towards Federated Long-Tailed Learning",
  2022, https://arxiv.org/abs/2206.14988; the construction by Latin squares is fedlt's own.
* Specialists: the images of rare classes belong to a few clients.

All cids have equal chances, and every image has one client.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedlt.data.longtail import by_class
from fedlt.data.shots import shot_groups
from fedlt.errors import FedltError
from fedlt.rng import numpy_generator


def quantity(
    labels: NDArray[np.int64],
    num_classes: int,
    num_clients: int,
    *,
    alpha: float,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Return owners with sizes p ~ Dir(alpha) over the clients, the same p for every class.

    Client k gets n p_k of the n images of a class: to within one, and in the mean over seeds.

    Args:
        labels: (N,).
        num_classes: C.
        num_clients: K.
        alpha: Concentration, above 0; a small alpha gives very unequal sizes.
        rng: Generator.

    Returns:
        Cid of each image (N,).

    Raises:
        FedltError: If alpha is too small or too large for NumPy's generator.
    """
    shares = rng.dirichlet(np.full(num_clients, alpha))
    if not abs(shares.sum() - 1) < 1e-6:  # also true if the sum is not a number
        raise FedltError(f"partition.dirichlet_alpha: {alpha:g} is too small or too large")
    return _deal(labels, np.tile(shares, (num_classes, 1)), rng)


def local_tail(
    labels: NDArray[np.int64],
    num_classes: int,
    num_clients: int,
    *,
    imbalance_factor: float,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Return owners such that each client has an exponential long tail in its own class order.

    Client k gives class c a rank r_kc, 0 for its largest class, and so the weight
    ``w_kc = IF ** (-r_kc / (C - 1))``. The n_c images of class c are divided in proportion to the
    weights: client k gets ``n_c w_kc / sum over j of w_jc``, to within one, and in the mean over
    seeds. The ranks of C clients form a random Latin square: in these clients each class has each
    rank once, so the sum is the same for all classes. With equal n_c and a number of clients that
    is a multiple of C, all clients have equal sizes and local tails of exactly IF.

    Args:
        labels: (N,).
        num_classes: C.
        num_clients: K.
        imbalance_factor: IF >= 1, largest / smallest weight of a client.
        rng: Generator.

    Returns:
        Cid of each image (N,).
    """
    ranks = class_orders(num_clients, num_classes, rng)
    weights = imbalance_factor ** (-ranks.T / (num_classes - 1))  # (C, K)
    return _deal(labels, weights / weights.sum(axis=1, keepdims=True), rng)


def class_orders(num_clients: int, num_classes: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the rank (K, C) of each class for each client, block by block a Latin square.

    A square is the cyclic one with rows, columns and ranks shuffled. If K is no multiple of C, the
    last square gives a part of its rows.
    """
    cyclic = np.add.outer(np.arange(num_classes), np.arange(num_classes)) % num_classes
    blocks = [
        rng.permutation(num_classes)[cyclic[rng.permutation(num_classes)]][
            :, rng.permutation(num_classes)
        ]
        for _ in range(-(-num_clients // num_classes))
    ]
    return np.concatenate(blocks)[:num_clients]


def _deal(
    labels: NDArray[np.int64], shares: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return owners (N,) with each class c divided by ``shares[c]`` (C, K), rounded without bias.

    The images of a class are cut in a random order of the clients at ``floor(cumsum(p) * n + u)``,
    with u uniform in [0, 1): systematic sampling, in which client k gets n p_k in expectation.
    """
    owner = np.empty(len(labels), np.int64)
    for positions, own in zip(by_class(labels, len(shares)), shares, strict=True):
        rng.shuffle(positions)
        cids = rng.permutation(len(own))
        cuts = np.floor(np.cumsum(own[cids]) * len(positions) + rng.random()).astype(np.int64)
        cuts[-1] = len(positions)
        ends = np.minimum(cuts, len(positions))
        owner[positions] = np.repeat(cids, np.diff(ends, prepend=0))
    return owner


def specialists(
    labels: NDArray[np.int64], num_classes: int, num_clients: int, *, holders: int, seed: int
) -> tuple[tuple[int, ...], NDArray[np.int64]]:
    """Return the rare classes, and the clients that alone hold them.

    The rare classes are the few-classes of :func:`fedlt.data.shots.shot_groups` by its rule
    ``auto``. The clients are drawn at random, by a generator of their own.

    Args:
        labels: (N,).
        num_classes: C.
        num_clients: K.
        holders: h, the number of clients that hold rare classes.
        seed: The run's seed.

    Returns:
        Class ids, and (h,) ascending cids.

    Raises:
        FedltError: If no class is rare, or h is above K.
    """
    if holders > num_clients:
        raise FedltError(f"partition.holders: {holders} is more than {num_clients} clients")
    rare = shot_groups(np.bincount(labels, minlength=num_classes)).few
    if not rare:
        raise FedltError(
            "partition.scheme: specialist needs rare classes, but the classes are alike; "
            "data.imbalance_factor: 20 makes some rare"
        )
    chosen = numpy_generator(seed, "specialists").permutation(num_clients)[:holders]
    return rare, np.sort(chosen)
