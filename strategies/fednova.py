"""FedNova: Wang et al., normalised averaging, NeurIPS 2020.

Tackling the objective inconsistency problem in heterogeneous federated optimization.
https://arxiv.org/abs/2007.07481
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import repeat
from typing import TYPE_CHECKING

import torch

from fedlt.optim.sgd import gradient_weight
from fedlt.strategy import ServerState, Strategy, StrategyTraits, Total, Update

if TYPE_CHECKING:
    from fedlt.client import Client

STEPS = "a"  # the extra that holds a_k


@dataclass(frozen=True)
class FedNova(Strategy):
    """FedAvg that does not let clients with more steps pull the model to themselves.

    Client k answers with its mean step d_k = (x_k - x) / a_k; a_k is its number of steps, or of
    gradients in them under momentum. The server takes tau mean steps, tau = sum p_k a_k,
    p_k = n_k / n:

        x <- x + tau sum p_k d_k

    The steps travel, not models moved by them: x + d_k would lose the digits that tau multiplies.
    With equal numbers of steps it is FedAvg, to rounding.
    """

    traits = StrategyTraits(needs_sgd=True)

    def local_update(self, client: Client) -> Update:
        """Train and answer with the mean step."""
        metrics = client.train(self.objective)
        weight = gradient_weight(repeat(1.0, int(metrics["steps"])), client.local.momentum)
        # A client without images took no step, and counts with weight 0.
        steps = torch.tensor(weight or 1.0, device=client.data.images.device)
        state, names = client.model.state(), client.model.parameter_names("shared")
        mean = {name: (state[name] - client.broadcast[name]) / steps for name in names}
        extras = {STEPS: steps}
        return client.update(metrics, shared={**state, **mean}, extras=extras, is_step=True)

    def aggregate(self, state: ServerState, total: Total) -> ServerState:
        """Take tau mean steps: the normalised update with the effective number of steps."""
        means = total.mean()
        tau = means.pop(STEPS)
        moved = {name: state.broadcast[name] + tau * mean for name, mean in means.items()}
        return replace(state, broadcast={**state.broadcast, **moved})
