"""FedProx: Li et al., Federated optimization in heterogeneous networks, MLSys 2020.

https://arxiv.org/abs/1812.06127
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedlt.config.ranges import NotNegative
from strategies.fedavg import FedAvg

if TYPE_CHECKING:
    from torch import Tensor

    from fedlt.client import Batch, Client


@dataclass(frozen=True)
class FedProx(FedAvg):
    """FedAvg with a proximal term that holds every client near the global model.

    With mu = 0 the method is FedAvg, bit for bit.
    """

    mu: NotNegative = 0.01  # weight of the proximal term

    def objective(self, client: Client, batch: Batch) -> Tensor:
        """Return F_k(w) + mu/2 |w - w_global|^2, eq. 2 of the paper."""
        drift = client.squared_distance(client.broadcast)
        return super().objective(client, batch) + 0.5 * self.mu * drift
