"""The clients' party: each client's share of the training images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedlt.federation.terms import Terms

if TYPE_CHECKING:
    from fedlt.data.arrays import Images
    from fedlt.data.partition import Partition


@dataclass(frozen=True)
class ClientShare:
    """One client's images and counts."""

    positions: NDArray[np.int64]  # (n,) in the images that the clients of a process share
    class_counts: NDArray[np.int64]  # (C,)


@dataclass(frozen=True, eq=False)
class ClientShares(Terms):
    """The shares of the clients that a process serves. All arrays are read-only and not copied."""

    mean: tuple[float, ...]  # (Ch,), of pixel / 255
    std: tuple[float, ...]  # (Ch,), of pixel / 255
    images: Images  # (N, Ch, H, W), of all these clients
    labels: NDArray[np.int64]  # (N,)
    partition: Partition  # positions in the N images, by client
    client_counts: NDArray[np.int64]  # (K, C)
    material: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)  # of plugin.prepare
    pooled: bool = False  # privileged: tasks may have everybody's images, by the driver's leave

    def of(self, cid: int) -> ClientShare:
        """Return client ``cid``'s share."""
        return ClientShare(self.partition.clients[cid], self.client_counts[cid])

    def everybody(self) -> ClientShare:
        """Return all clients' images as one share: privileged, for a reference without clients.

        Raises:
            ValueError: If the driver has not given leave to pool the images.
        """
        if not self.pooled:
            raise ValueError("everybody's images are not for this strategy: it does not pool them")
        return ClientShare(self.partition.covered(), self.client_counts.sum(axis=0))

    @property
    def sizes(self) -> NDArray[np.int64]:
        """(K,) training images of each client."""
        return self.partition.sizes()
