"""Partition schemes: Dirichlet, Dirichlet as in FedLoGe's code (reference), IID, shards, and skews.

Dirichlet: T.-M. H. Hsu et al., "Measuring the Effects of Non-Identical Data Distribution for
Federated Visual Classification", 2019, https://arxiv.org/abs/1909.06335, per class as in
M. Yurochkin et al., ICML 2019, https://arxiv.org/abs/1905.12022. Reference: Z. Xiao et al.,
"FedLoGe", ICLR 2024, https://openreview.net/forum?id=V3j5d0GQgH. Shards: H. B. McMahan et al.,
AISTATS 2017, https://arxiv.org/abs/1602.05629.

Each scheme returns ``owner`` (N,), the cid of each image, so that every image has one client. All
cids have equal chances: images left over by rounding, and ties, go to a client drawn at random.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedlt.data.longtail import by_class
from fedlt.data.partition import Partition
from fedlt.data.partition_skews import local_tail, quantity, specialists
from fedlt.errors import FedltError, nearest
from fedlt.rng import numpy_generator

if TYPE_CHECKING:
    from fedlt.config import PartitionConfig

SCHEMES = ("dirichlet", "iid", "shards", "quantity", "local_tail", "specialist")
VARIANTS = ("default", "reference")


def draw_partition(
    labels: NDArray[np.int64], num_classes: int, config: PartitionConfig, *, seed: int
) -> Partition:
    """Return a partition drawn by a built-in scheme.

    Args:
        labels: (N,) classes of the training images.
        num_classes: C.
        config: Section ``partition`` of the configuration.
        seed: The run's seed.

    Raises:
        FedltError: If the numbers cannot be met.
    """
    clients = config.num_clients
    _check_feasible(len(labels), config)
    rng = numpy_generator(seed, "partition")
    if config.variant == "reference":
        owner = dirichlet_reference(
            labels, num_classes, clients, alpha=config.dirichlet_alpha, seed=seed
        )
    elif config.scheme == "specialist":
        owner = _specialist(labels, num_classes, config, rng, seed)
    else:
        owner = _draw(labels, num_classes, config, rng)
        owner = repair(owner, clients, min_samples=config.min_samples, rng=rng)
    return Partition.from_owner(owner, labels, num_clients=clients, num_classes=num_classes)


def _check_feasible(num_images: int, config: PartitionConfig) -> None:
    clients = config.num_clients
    if config.scheme not in SCHEMES:
        raise FedltError(
            f"partition.scheme: unknown {config.scheme!r}{nearest(config.scheme, SCHEMES)}"
        )
    if config.variant not in VARIANTS:
        raise FedltError(
            f"partition.variant: unknown {config.variant!r}{nearest(config.variant, VARIANTS)}"
        )
    if config.variant == "reference" and config.scheme != "dirichlet":
        raise FedltError(f"partition.variant: reference is a dirichlet, not {config.scheme!r}")
    if clients < 1 or clients > num_images:
        raise FedltError(
            f"partition.num_clients: {clients} clients for {num_images} training images;"
            f" at most {num_images} here"
        )
    if config.variant == "default" and clients * config.min_samples > num_images:
        raise FedltError(
            f"partition.min_samples: {clients} clients with {config.min_samples} each need"
            f" {clients * config.min_samples} images, there are {num_images}; at most"
            f" {num_images // clients} here"
        )


def _draw(
    labels: NDArray[np.int64],
    num_classes: int,
    config: PartitionConfig,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    clients, alpha = config.num_clients, config.dirichlet_alpha
    if config.scheme == "iid":
        return iid(len(labels), clients, rng)
    if config.scheme == "shards":
        return shards(labels, clients, config.shards_per_client, rng)
    if config.scheme == "quantity":
        return quantity(labels, num_classes, clients, alpha=alpha, rng=rng)
    if config.scheme == "local_tail":
        factor = config.local_imbalance_factor
        return local_tail(labels, num_classes, clients, imbalance_factor=factor, rng=rng)
    return dirichlet(labels, num_classes, clients, alpha=alpha, rng=rng)


def _specialist(
    labels: NDArray[np.int64],
    num_classes: int,
    config: PartitionConfig,
    rng: np.random.Generator,
    seed: int,
) -> NDArray[np.int64]:
    """Return owners as by Dirichlet, with the rare classes divided among specialists only.

    Every client gets ``min_samples`` images of the other classes. With as many specialists as
    clients the draw is that of the scheme ``dirichlet``.
    """
    clients = config.num_clients
    rare, cids = specialists(labels, num_classes, clients, holders=config.holders, seed=seed)
    only = dict.fromkeys(rare, cids)
    owner = dirichlet(
        labels, num_classes, clients, alpha=config.dirichlet_alpha, rng=rng, only=only
    )
    moved = np.isin(labels, rare, invert=True) | (config.holders == clients)
    owner[moved] = repair(owner[moved], clients, min_samples=config.min_samples, rng=rng)
    return owner


def dirichlet(
    labels: NDArray[np.int64],
    num_classes: int,
    num_clients: int,
    *,
    alpha: float,
    rng: np.random.Generator,
    only: Mapping[int, NDArray[np.int64]] = MappingProxyType({}),
) -> NDArray[np.int64]:
    """Return owners of images with each class divided by p ~ Dir(alpha) over the clients.

    The n images of a class and the clients are shuffled. The images are then cut in the order of
    the clients at ``floor(cumsum(p) * n)``, so client k gets n p_k images to within one (there is
    no second, multinomial, draw). Rounding favours the last clients of this order, which is drawn
    again for every class.

    Args:
        labels: (N,).
        num_classes: C.
        num_clients: K.
        alpha: Concentration, above 0; a small alpha gives very unequal shares.
        rng: Generator, read class by class: Dirichlet, shuffle, order of the clients.
        only: Class -> the cids that share it; all clients share every other class.

    Returns:
        Cid of each image (N,).

    Raises:
        FedltError: If alpha is too small or too large for NumPy's generator.
    """
    owner = np.empty(len(labels), np.int64)
    for label, positions in enumerate(by_class(labels, num_classes)):
        cids = only.get(label, np.arange(num_clients))
        shares = _checked(rng.dirichlet(np.full(len(cids), alpha)), alpha)
        rng.shuffle(positions)
        order = rng.permutation(len(cids))
        cuts = np.floor(np.cumsum(shares[order]) * len(positions)).astype(np.int64)
        cuts[-1] = len(positions)
        ends = np.minimum(cuts, len(positions))
        owner[positions] = np.repeat(cids[order], np.diff(ends, prepend=0))
    return owner


def _checked(shares: NDArray[np.float64], alpha: float) -> NDArray[np.float64]:
    if not abs(shares.sum() - 1) < 1e-6:  # also true if the sum is not a number
        raise FedltError(
            f"partition.dirichlet_alpha: {alpha:g} is too small or too large for this variant"
        )
    return shares


def dirichlet_reference(
    labels: NDArray[np.int64], num_classes: int, num_clients: int, *, alpha: float, seed: int
) -> NDArray[np.int64]:
    """Return owners drawn as in FedLoGe's code: Dirichlet, each image alone, no minimum size.

    NumPy's legacy generator, seeded with the run's seed, is read in this order: one
    ``binomial(1, 1, (K, C))`` (always ones, without effect), then for each class ``dirichlet`` and
    ``choice``. A client may stay empty.

    Args:
        labels: (N,).
        num_classes: C.
        num_clients: K.
        alpha: Concentration, above 0.
        seed: The run's seed, 0 .. 2**32 - 1.

    Returns:
        Cid of each image (N,).

    Raises:
        FedltError: If the seed or alpha is outside the range of the legacy generator.
    """
    if not 0 <= seed < 2**32:
        raise FedltError(f"seed: {seed} is outside 0 .. 2**32 - 1 (partition.variant: reference)")
    rng = np.random.RandomState(seed)
    rng.binomial(1, 1, (num_clients, num_classes))
    owner = np.empty(len(labels), np.int64)
    for positions in by_class(labels, num_classes):
        with np.errstate(invalid="ignore"):
            shares = _checked(rng.dirichlet([alpha] * num_clients), alpha)
        owner[positions] = rng.choice(num_clients, size=len(positions), p=shares)
    return owner


def iid(num_images: int, num_clients: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return owners drawn uniformly, with client sizes that differ by at most one.

    The clients with one image more are drawn at random.

    Returns:
        Cid of each image (N,).
    """
    owner = np.empty(num_images, np.int64)
    cids = rng.permutation(num_clients)
    owner[rng.permutation(num_images)] = cids[np.arange(num_images) % num_clients]
    return owner


def shards(
    labels: NDArray[np.int64], num_clients: int, shards_per_client: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return owners by shards: images sorted by class, cut into shards, shards dealt out.

    There are K * shards_per_client shards, dealt out at random. Images of a class are shuffled
    before the cut. Shard sizes differ by at most one; the larger shards are drawn at random.

    Returns:
        Cid of each image (N,).

    Raises:
        FedltError: If there are more shards than images.
    """
    total = num_clients * shards_per_client
    if shards_per_client < 1 or total > len(labels):
        raise FedltError(
            f"partition.shards_per_client: {num_clients} clients with {shards_per_client} shards"
            f" for {len(labels)} images; 1 to {len(labels) // num_clients} here"
        )
    shuffled = rng.permutation(len(labels))
    ordered = shuffled[np.argsort(labels[shuffled], kind="stable")]
    cids = rng.permutation(np.repeat(np.arange(num_clients), shards_per_client))
    owner = np.empty(len(labels), np.int64)
    sizes = np.full(total, len(labels) // total)
    sizes[rng.permutation(total)[: len(labels) % total]] += 1
    owner[ordered] = np.repeat(cids, sizes)
    return owner


def repair(
    owner: NDArray[np.int64], num_clients: int, *, min_samples: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return owners such that every client has ``min_samples`` images, with the fewest moves.

    Missing images are filled one at a time, in a random order of the clients that need them. Each
    image comes from the client that is largest at that moment (ties: random order) and is drawn
    uniformly from the donor's original images, so the donor keeps its class mix in expectation.
    While a client needs images, the largest client has more than ``min_samples``. So every move
    fills one missing image, and no image moves in vain.

    Args:
        owner: (N,) cid of each image.
        num_clients: K, with K * min_samples <= N.
        min_samples: Smallest number of images of a client.
        rng: Generator, read only if some client lacks images.

    Returns:
        A repaired copy of ``owner``.

    Raises:
        FedltError: If there are too few images.
    """
    if num_clients * min_samples > len(owner):
        raise FedltError(
            f"partition.min_samples: {min_samples} for {num_clients} clients, {len(owner)} images"
        )
    owner = owner.copy()
    sizes = np.bincount(owner, minlength=num_clients)
    lacking = np.maximum(min_samples - sizes, 0)
    if not lacking.any():
        return owner
    shuffled = rng.permutation(len(owner))
    held = shuffled[np.argsort(owner[shuffled], kind="stable")]  # client by client, each shuffled
    ends = np.cumsum(sizes)  # end of each client's unmoved images in `held`
    ranks = rng.permutation(num_clients)
    donors = [(-int(sizes[k]), int(ranks[k]), int(k)) for k in np.flatnonzero(sizes > min_samples)]
    heapq.heapify(donors)  # the largest client first, ties by rank
    for cid in rng.permutation(np.repeat(np.arange(num_clients), lacking)):
        size, rank, donor = donors[0]
        ends[donor] -= 1
        owner[held[ends[donor]]] = cid
        heapq.heapreplace(donors, (size + 1, rank, donor))
    return owner
