"""Input of a client plugin's preparation before the first round, such as training a generator."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from fedlt.config.cohort import cohort_size
from fedlt.data.prior import log_prior
from fedlt.machine.devices import find_device

if TYPE_CHECKING:
    from fedlt.config import Config
    from fedlt.data.federated import FederatedData
    from fedlt.progress import Progress


@dataclass(frozen=True, eq=False)
class Preparation:
    """A federation before its first round, as a client plugin's preparation may read it."""

    config: Config
    data: FederatedData
    seed: int  # seed for all random numbers of the preparation
    pooled: bool  # True: treat all clients as one client that holds all images
    progress: Progress  # receives progress messages

    @cached_property
    def device(self) -> torch.device:
        """Device to compute on.

        Raises:
            FedltError: If there is no such device.
        """
        return find_device(self.config.engine.device)

    @cached_property
    def clients(self) -> tuple[NDArray[np.int64], ...]:
        """Rows of each client in the training images."""
        if self.pooled:
            return (self.data.partition.covered(),)
        clients = self.data.partition.clients
        return tuple(clients[cid] for cid in range(len(clients)))

    @property
    def cohort(self) -> int:
        """Number of clients in a round's cohort."""
        return min(cohort_size(self.config.clients_per_round, len(self.clients)), len(self.clients))

    @cached_property
    def shares(self) -> NDArray[np.float32]:
        """Share of each class for each client (K, C), from the configured ``prior``."""
        prior, data = self.config.prior, self.data
        counts = data.class_counts[None] if self.pooled else data.client_counts
        known = data.class_counts if prior.use in ("global", "mix") else None
        logs = [log_prior(own, known, use=prior.use, gamma=prior.gamma) for own in counts]
        found: NDArray[np.float32] = torch.from_numpy(np.stack(logs)).softmax(dim=1).numpy()
        return found
