"""From the configuration to the partition of a run, whatever says who holds which image.

a scheme drawn here | client numbers of the data | a user's function | a partitioner of Flower
Datasets | a file   ->   owner of each image   ->   Partition
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedlt.config.loading import is_spec, load_users_object
from fedlt.config.raised import users_code
from fedlt.data.flower_partitioners import FLOWER_DATASETS, HINT, owner_by_partitioner
from fedlt.data.natural_clients import NaturalClients, natural_clients
from fedlt.data.partition import NOBODY, Partition, labels_hash, parse_partition, read_content
from fedlt.data.partition_schemes import draw_partition
from fedlt.errors import FedltError, nearest, shortened

if TYPE_CHECKING:
    from fedlt.config import PartitionConfig

_HINT = "csv, list, npz, features, huggingface and dataset_from_arrays can give them"
_GIVEN = ("labels", "num_clients", "seed")  # what a user's function gets by name


@dataclass(frozen=True, eq=False)
class Dealing:
    """A partition, and what there is to say about it."""

    partition: Partition
    notes: tuple[str, ...] = ()  # lines for the user
    natural: NaturalClients | None = None  # None: clients are not those of the data set


def deal(
    labels: NDArray[np.int64],
    num_classes: int,
    config: PartitionConfig,
    *,
    seed: int,
    users: NDArray[np.int64] | None = None,
    hint: str = "",
) -> Dealing:
    """Return the partition of a run.

    A partition from a file keeps its own number of clients, whatever ``config.num_clients`` says.

    Args:
        labels: (N,) classes of the training images.
        num_classes: C.
        config: Section ``partition`` of the configuration.
        seed: The run's seed.
        users: (N,) client number of each image in the data set, :data:`NOBODY` for none; None: the
            data set has no client numbers.
        hint: How a user gives client numbers to the data set, for the error without them.

    Raises:
        FedltError: If the numbers cannot be met, the file or the user's code is wrong, or images
            belong to nobody and ``partition.uncovered`` is ``refuse``.
    """
    if config.file is not None:
        partition, notes = read_partition(config.file, labels, num_classes)
        where = f"partition.file {config.file!r}"
        return Dealing(partition, (*notes, *_uncovered(partition, where, config.uncovered)))
    if config.scheme == "natural":
        if users is None:
            words = (
                "partition.scheme: natural needs client numbers, which the data set does not have"
            )
            raise FedltError(f"{words}; {hint or _HINT}")
        return _natural(labels, num_classes, config, users, seed)
    if not is_spec(config.scheme):
        return Dealing(draw_partition(labels, num_classes, config, seed=seed))
    owner, num_clients, notes = _by_code(labels, config, users, seed)
    partition = Partition.from_owner(
        owner, labels, num_clients=num_clients, num_classes=num_classes
    )
    where = f"partition.scheme: {config.scheme!r}"
    return Dealing(partition, (*notes, *_uncovered(partition, where, config.uncovered)))


def _uncovered(partition: Partition, where: str, rule: str) -> list[str]:
    """Return a line about images of nobody, if there are any.

    Raises:
        FedltError: If there are and ``rule`` is ``refuse``, or if nobody has an image.
    """
    dropped, images = partition.num_dropped, partition.num_images
    if dropped == images:
        raise FedltError(f"{where}: gives no image to any client")
    if dropped and rule == "refuse":
        raise FedltError(
            f"{where}: gives {dropped:,} of {images:,} images to no client; "
            "partition.uncovered=drop trains without them"
        )
    if not dropped:
        return []
    return [f"{dropped:,} of {images:,} training images belong to no client and are not used"]


def _natural(
    labels: NDArray[np.int64],
    num_classes: int,
    config: PartitionConfig,
    users: NDArray[np.int64],
    seed: int,
) -> Dealing:
    found = natural_clients(users, min_images=config.min_images, merge=config.merge, seed=seed)
    partition = Partition.from_owner(
        found.cids_of(users), labels, num_clients=found.num_clients, num_classes=num_classes
    )
    unowned = int((users == NOBODY).sum())
    if unowned and config.uncovered == "refuse":
        raise FedltError(
            f"partition.scheme: natural: {unowned:,} of {len(users):,} images have no client "
            "number; partition.uncovered=drop trains without them"
        )
    return Dealing(partition, found.notes(users), found)


def read_partition(
    path: str, labels: NDArray[np.int64], num_classes: int
) -> tuple[Partition, list[str]]:
    """Return the partition in a file that may be written by hand, and lines of warning.

    Only ``clients`` must be there. Other keys are compared with the data where they are given.

    Args:
        path: The file.
        labels: (N,) classes of the training images.
        num_classes: C.

    Raises:
        FedltError: If the file is wrong or does not fit; the error names the place in the file.
    """
    where = f"partition.file {path!r}"
    content = read_content(path, where)
    known = {
        "num_clients": len(content["clients"]) if isinstance(content["clients"], list) else 0,
        "num_classes": num_classes,
        "num_images": len(labels),
        "labels_sha256": labels_hash(labels),
    }
    if content.get("num_images", len(labels)) != len(labels):
        raise FedltError(
            f"{where}: made for {shortened(repr(content['num_images']))} images, but the data have "
            f"{len(labels)}"
        )
    partition = parse_partition({**known, **content}, where)
    partition.check(labels, where)
    if partition.num_classes != num_classes:
        raise FedltError(
            f"{where}: made for {partition.num_classes} classes, but the data have {num_classes}"
        )
    unknown = {
        "labels_sha256": "nothing shows that it was made for these images",
        "sha256": "a damaged file is not noticed",
    }
    notes = [f"{key}: {what}" for key, what in unknown.items() if key not in content]
    return partition, [f"{where} has no {' and no '.join(notes)}"] if notes else []


def _by_code(
    labels: NDArray[np.int64],
    config: PartitionConfig,
    users: NDArray[np.int64] | None,
    seed: int,
) -> tuple[NDArray[np.int64], int, list[str]]:
    """Return owners (N,), number of clients, and notes, by a user's function or a partitioner."""
    where = f"partition.scheme: {config.scheme!r}"
    if config.scheme.startswith(f"{FLOWER_DATASETS}.") and find_spec(FLOWER_DATASETS) is None:
        raise FedltError(f"{where} needs Flower Datasets: {HINT}")
    found = load_users_object(config.scheme, "partition.scheme")
    if inspect.isclass(found):
        return owner_by_partitioner(
            found, labels, users=users, config=config, seed=seed, where=where
        )
    if not callable(found):
        raise FedltError(f"{where} is not a function")
    _check_options(found, config.options, where)
    with users_code(f"{where} fails"):
        result = found(
            labels=labels.copy(), num_clients=config.num_clients, seed=seed, **config.options
        )
    return _owner(result, len(labels), config.num_clients, where), config.num_clients, []


def _check_options(function: Any, options: Mapping[str, Any], where: str) -> None:  # noqa: ANN401
    """Refuse a function that does not take labels, num_clients and seed, or not the options."""
    parameters = inspect.signature(function).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    for key in _GIVEN:
        if key not in parameters:
            raise FedltError(f"{where} has no argument {key!r}; it needs {', '.join(_GIVEN)}")
    own = [key for key in parameters if key not in _GIVEN]
    for key in options:
        if key not in own:
            raise FedltError(f"partition.options: {where} has no {key!r}{nearest(key, own)}")
    for key in own:
        if key not in options and parameters[key].default is inspect.Parameter.empty:
            raise FedltError(f"partition.options: {where} needs {key!r}")


def _owner(result: object, size: int, num_clients: int, where: str) -> NDArray[np.int64]:
    """Return a user's result as owners (N,), after checks."""
    owner = np.asarray(result)
    if owner.shape != (size,) or not np.issubdtype(owner.dtype, np.integer):
        raise FedltError(
            f"{where} returns {owner.dtype} {owner.shape}; expected the client number of each of "
            f"the {size} images, as whole numbers ({size},)"
        )
    wrong = np.flatnonzero((owner < NOBODY) | (owner >= num_clients))
    if len(wrong):
        raise FedltError(
            f"{where} gives image {wrong[0]} to client {owner[wrong[0]]}; clients are 0 to "
            f"{num_clients - 1}, and {NOBODY} is nobody"
        )
    return owner.astype(np.int64)
