"""Partitions by the partitioners of Flower Datasets, such as its ``DirichletPartitioner``.

Documentation of the package: https://flower.ai/docs/datasets. The partitioner gets a table with the
columns ``row``, ``label`` and, where the data set has client numbers, ``client``; it never sees an
image.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedlt.config.raised import users_code
from fedlt.data.partition import NOBODY
from fedlt.errors import FedltError, nearest

if TYPE_CHECKING:
    from fedlt.config import PartitionConfig

FLOWER_DATASETS = "flwr_datasets"  # the package
HINT = "pip install 'fedlt[flwr-datasets]'"


def owner_by_partitioner(
    cls: type,
    labels: NDArray[np.int64],
    *,
    users: NDArray[np.int64] | None,
    config: PartitionConfig,
    seed: int,
    where: str,
) -> tuple[NDArray[np.int64], int, list[str]]:
    """Return the client of each image, the number of clients, and notes.

    ``num_partitions``, ``seed`` and ``partition_by`` are filled in where the class takes them: the
    configured number of clients, the run's seed, and the column ``label``.

    Args:
        cls: A partitioner class.
        labels: (N,) classes of the training images.
        users: (N,) client numbers of the data set, or None.
        config: Section ``partition`` of the configuration.
        seed: The run's seed.
        where: Name of the partitioner in messages.

    Returns:
        (N,) cids, :data:`NOBODY` for an image in no part; K; lines for the user.

    Raises:
        FedltError: If the class is no partitioner, an option does not fit, the partitioner fails,
            or it gives an image to two clients.
    """
    if not any(base.__module__.startswith(f"{FLOWER_DATASETS}.") for base in cls.__mro__):
        raise FedltError(f"{where} is neither a function nor a partitioner of Flower Datasets")
    from datasets import Dataset

    parameters = inspect.signature(cls).parameters
    if "num_partitions" in config.options:
        raise FedltError("partition.options.num_partitions: is partition.num_clients")
    filled = {"num_partitions": config.num_clients, "seed": seed, "partition_by": "label"}
    arguments = {key: value for key, value in filled.items() if key in parameters}
    _check_options(config.options, parameters, where)
    columns = {"row": np.arange(len(labels)), "label": labels}
    columns |= {} if users is None else {"client": users}
    with users_code(f"{where} fails"), warnings.catch_warnings(action="ignore"):
        partitioner = cls(**(arguments | config.options))
        partitioner.dataset = Dataset.from_dict(columns)
        tables = [partitioner.load_partition(n) for n in range(partitioner.num_partitions)]
    if not all("row" in table.column_names for table in tables):
        raise FedltError(f"{where} divides columns, not images")
    parts = [np.asarray(table["row"], np.int64) for table in tables]
    rows, sizes = np.concatenate([np.empty(0, np.int64), *parts]), [len(part) for part in parts]
    twice = np.flatnonzero(np.bincount(rows, minlength=len(labels)) > 1)
    if len(twice):
        raise FedltError(f"{where} gives image {twice[0]} out more than once")
    owner = np.full(len(labels), NOBODY)
    owner[rows] = np.repeat(np.arange(len(parts)), sizes)
    notes = []
    if "num_partitions" not in parameters:
        notes = [f"{len(parts):,} clients by {cls.__name__}; partition.num_clients is not read"]
    return owner, len(parts), notes


def _check_options(
    options: Mapping[str, Any], parameters: Mapping[str, inspect.Parameter], where: str
) -> None:
    for key in options:
        if key not in parameters:
            raise FedltError(f"partition.options: {where} has no {key!r}{nearest(key, parameters)}")
    known = {*options, "num_partitions", "seed", "partition_by"}
    for key, parameter in parameters.items():
        if key not in known and parameter.default is inspect.Parameter.empty:
            raise FedltError(f"partition.options: {where} needs {key!r}")
