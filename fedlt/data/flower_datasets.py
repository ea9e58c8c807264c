"""A partitioner for Flower Datasets that makes fedlt's long-tailed draw.

    from flwr_datasets import FederatedDataset
    from fedlt import LongTailPartitioner

    partitioner = LongTailPartitioner(num_partitions=10, partition_by="label", imbalance_factor=100)
    federation = FederatedDataset(dataset="cifar10", partitioners={"train": partitioner})
    images = federation.load_partition(0)

The draw is that of a run of fedlt with the same numbers: first the long tail
(:func:`fedlt.data.longtail.long_tail`), then a Dirichlet over the clients
(:func:`fedlt.data.partition_schemes.dirichlet`). Images left out by the long tail are in no part.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fedlt.config import PartitionConfig
from fedlt.data.flower_partitioners import HINT
from fedlt.data.longtail import long_tail
from fedlt.data.partition_schemes import draw_partition
from fedlt.errors import FedltError, nearest

try:
    from datasets import Dataset
    from flwr_datasets.partitioner import Partitioner
except ImportError as error:
    raise FedltError(
        f"fedlt.LongTailPartitioner needs Flower Datasets ({error}): {HINT}"
    ) from error


class LongTailPartitioner(Partitioner):  # type: ignore[misc]  # its package has no types
    """Divides a data set into long-tailed parts, the same images as fedlt's own draw.

    Args:
        num_partitions: Number of parts, fedlt's ``partition.num_clients``.
        partition_by: Column of the class labels. Other values than 0 .. C-1 are numbered in
            ascending order.
        imbalance_factor: Largest / smallest class after the long-tail draw, at least 1.
        profile: How class sizes fall: ``exponential`` or ``step``.
        class_order: ``natural``, or ``shuffled`` by the seed: which classes become rare.
        dirichlet_alpha: Concentration, above 0; small: few classes per part.
        min_samples: Smallest number of images of a part.
        seed: fedlt's ``seed``.

    Raises:
        ValueError: If a number is outside its range.
    """

    def __init__(
        self,
        num_partitions: int,
        partition_by: str = "label",
        *,
        imbalance_factor: float = 1.0,
        profile: str = "exponential",
        class_order: str = "natural",
        dirichlet_alpha: float = 0.5,
        min_samples: int = 2,
        seed: int = 1,
    ) -> None:
        super().__init__()
        self._config = PartitionConfig(
            num_clients=num_partitions,
            dirichlet_alpha=float(dirichlet_alpha),
            min_samples=min_samples,
        )
        self._column, self._seed = partition_by, seed
        self._factor, self._profile, self._order = imbalance_factor, profile, class_order

    @property
    def num_partitions(self) -> int:
        """Number of parts."""
        return self._config.num_clients

    def load_partition(self, partition_id: int) -> Dataset:
        """Return the rows of a part, in ascending order of fedlt's training images.

        Args:
            partition_id: 0 .. ``num_partitions`` - 1.

        Raises:
            FedltError: If there is no such part or column, or the draw is impossible.
        """
        if not 0 <= partition_id < self.num_partitions:
            raise FedltError(
                f"partition_id: {partition_id} is not in 0 .. {self.num_partitions - 1}"
            )
        return self.dataset.select(self._rows[partition_id])

    @cached_property
    def _rows(self) -> list[NDArray[np.int64]]:
        """Rows of each part in the data set."""
        columns = self.dataset.column_names
        if self._column not in columns:
            known = nearest(self._column, columns)
            raise FedltError(f"partition_by: no column {self._column!r}{known}")
        names, labels = np.unique(np.asarray(self.dataset[self._column]), return_inverse=True)
        tail = long_tail(
            labels,
            len(names),
            imbalance_factor=self._factor,
            profile=self._profile,
            class_order=self._order,
            seed=self._seed,
        )
        drawn = draw_partition(labels[tail], len(names), self._config, seed=self._seed)
        return [tail[rows] for rows in drawn.clients]
