"""FedSWA: Liu et al., stochastic weight averaging for heterogeneous clients, ICML 2025.

Improving generalization in federated learning with highly heterogeneous data via momentum-based
stochastic controlled weight averaging.
https://arxiv.org/abs/2507.20016
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch

from fedlt.config.ranges import Positive, Share
from fedlt.strategy import ServerState, Strategy, StrategyTraits, Total, Update

if TYPE_CHECKING:
    from fedlt.client import Client
    from fedlt.optim.batch import Schedule


def falling(step: int, steps: int, *, end: float) -> float:
    """Return the learning rate's factor (1 - k/K) + (k/K) end in step k of K, from k = 0."""
    return 1 - (1 - end) * step / steps


@dataclass(frozen=True)
class FedSWA(Strategy):
    """FedAvg; the learning rate falls within each round, and the server steps beyond the mean.

    With rho = alpha = 1 the method is FedAvg, bit for bit. Means are weighted by examples.
    """

    traits = StrategyTraits(sends="")

    rho: Share = 0.1  # share of its first value towards which the learning rate falls
    alpha: Positive = 1.5  # server's step from the old model to the mean; above 1: beyond

    @property
    def schedule(self) -> Schedule:
        """Factors of the learning rate: eta_k = eta (1 - k/K) + (k/K) rho eta."""
        return partial(falling, end=self.rho)

    def local_update(self, client: Client) -> Update:
        """Train under the falling learning rate."""
        return client.update(client.train(self.objective, schedule=self.schedule))

    def aggregate(self, state: ServerState, total: Total) -> ServerState:
        """Return theta + alpha (v - theta), v the clients' mean; for trainable parameters."""
        moved = {
            name: torch.lerp(state.broadcast[name], mean, self.alpha)
            for name, mean in total.mean().items()
        }
        return replace(state, broadcast={**state.broadcast, **moved})
