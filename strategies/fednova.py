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

STEPS = "a"  # extra of an update: a_k


@dataclass(frozen=True)
class FedNova(Strategy):
    """FedAvg of mean local steps, so that clients with more steps do not dominate the model.

    Client k sends its mean step d_k = (x_k - x) / a_k. a_k is the client's number of steps; under
    momentum, the number of gradients in these steps. A clipped gradient counts as one. The server
    takes tau mean steps, with tau = sum p_k a_k and p_k = n_k / n:

        x <- x + tau sum p_k d_k

    Clients send d_k itself: x + d_k would lose the digits that tau multiplies. With equal numbers
    of steps the method is FedAvg, up to rounding.
    """

    traits = StrategyTraits(
        needs_sgd=True, knows=("nesterov", "clip"), sends="numbers of local steps"
    )

    def local_update(self, client: Client) -> Update:
        """Train; the update holds the mean step d_k and a_k."""
        metrics = client.train(self.objective)
        factors, local = repeat(1.0, int(metrics["steps"])), client.local
        weight = gradient_weight(factors, local.momentum, nesterov=local.nesterov)
        # A client without images took no step, and counts with weight 0.
        steps = torch.tensor(weight or 1.0, device=client.data.images.device)
        state, names = client.model.state(), client.model.parameter_names("shared")
        mean = {name: (state[name] - client.broadcast[name]) / steps for name in names}
        extras = {STEPS: steps}
        return client.update(metrics, shared={**state, **mean}, extras=extras, is_step=True)

    def aggregate(self, state: ServerState, total: Total) -> ServerState:
        """Return the model after tau mean steps, tau the cohort's mean number of steps."""
        means = total.mean()
        tau = means.pop(STEPS)
        moved = {name: state.broadcast[name] + tau * mean for name, mean in means.items()}
        return replace(state, broadcast={**state.broadcast, **moved})
