"""FedSAM: Qu et al., Generalized federated learning via sharpness aware minimization, ICML 2022.

https://arxiv.org/abs/2206.02618
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedlt.config.ranges import NotNegative
from fedlt.strategy import StrategyTraits
from strategies.fedavg import FedAvg

if TYPE_CHECKING:
    from fedlt.client import Client
    from fedlt.strategy import Update


@dataclass(frozen=True)
class FedSAM(FedAvg):
    """FedAvg whose clients take sharpness-aware (SAM) steps, two gradients each.

    With rho = 0 the method is FedAvg, bit for bit.
    """

    rho: NotNegative = 0.05  # distance uphill at which the gradient is taken

    traits = StrategyTraits(sends="")

    def local_update(self, client: Client) -> Update:
        """Train by w - eta grad F_k(w + rho g / |g|), g = grad F_k(w): algorithm 1."""
        return client.update(client.train(self.objective, ascent=self.rho))
