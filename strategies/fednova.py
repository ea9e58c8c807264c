"""FedNova: Wang et al., normalised averaging, NeurIPS 2020.

Tackling the objective inconsistency problem in heterogeneous federated optimization.
https://arxiv.org/abs/2007.07481
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import repeat
from typing import TYPE_CHECKING, ClassVar

import torch

from fedlt.sgd import gradient_weight
from fedlt.strategy import ServerState, Strategy, Total, Update

if TYPE_CHECKING:
    from fedlt.client import Client

__all__ = ["FedNova"]

STEPS = "a"  # the extra that holds a_k


@dataclass(frozen=True)
class FedNova(Strategy):
    """FedAvg that does not let clients with more steps pull the model to themselves.

    Client k answers with its mean step y_k = x + (x_k - x) / a_k; a_k is its number of steps, or
    of gradients in them under momentum. The server takes tau mean steps, tau = sum p_k a_k,
    p_k = n_k / n:

        x <- x + tau (sum p_k y_k - x)

    With equal numbers of steps it is FedAvg, to rounding.
    """

    needs_sgd: ClassVar[bool] = True

    def local_update(self, client: Client) -> Update:
        """Train and answer with the mean step, as a model."""
        metrics = client.train(self.objective)
        weight = gradient_weight(repeat(1.0, int(metrics["steps"])), client.local.momentum)
        # A client without images took no step, and counts with weight 0.
        steps = torch.tensor(weight or 1.0, device=client.data.images.device)
        state = client.model.state()
        names = client.model.parameter_names("shared")
        mean = {n: torch.lerp(client.broadcast[n], state[n], 1 / float(steps)) for n in names}
        return client.update(metrics, shared={**state, **mean}, extras={STEPS: steps})

    def aggregate(self, state: ServerState, total: Total) -> ServerState:
        """Take tau mean steps: the normalised update with the effective number of steps."""
        means = total.mean()
        tau = float(means.pop(STEPS))
        moved = {n: torch.lerp(state.broadcast[n], mean, tau) for n, mean in means.items()}
        return replace(state, broadcast={**state.broadcast, **moved})
