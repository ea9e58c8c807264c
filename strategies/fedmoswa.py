"""FedMoSWA: Liu et al., FedSWA with momentum and control variates, ICML 2025.

Improving generalization in federated learning with highly heterogeneous data via momentum-based
stochastic controlled weight averaging.
https://arxiv.org/abs/2507.20016

    client i   theta <- theta - eta_k (g - c_i + m)              k = 0 .. K - 1, eta_k of FedSWA
               c_i+ = c_i - m + (theta_0 - theta_K) / sum eta_k
    server     theta <- theta + alpha (mean theta_K - theta),  m <- m + gamma mean(c_i+ - m)

Under momentum a gradient enters several steps; the sum counts it as often, as in SCAFFOLD here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fedlt.config.ranges import ShareAboveZero
from fedlt.optim.sgd import gradient_weight
from fedlt.strategy import ServerState, StrategyTraits, Tensors, Total, Update, prefixed, under
from strategies.fedswa import FedSWA
from strategies.scaffold import mean_gradients, with_drift

if TYPE_CHECKING:
    from fedlt.client import Batch, Client
    from fedlt.models import Model

SERVER, OWN, DRIFT = "m/", "c/", "drift/"  # prefixes of the names of m, c_i and m - c_i


@dataclass(frozen=True)
class FedMoSWA(FedSWA):
    """FedSWA with control variates; the server's variate is a moving average of the clients'.

    In the first round every variate is zero, so the round is FedSWA's, bit for bit. Means are
    weighted by examples.
    """

    traits = StrategyTraits(needs_sgd=True, knows=("nesterov",), sends="sums of gradients")
    gamma: ShareAboveZero = 0.2  # how fast m follows the clients' gradients

    def init(self, model: Model) -> ServerState:
        """Return the first state: m is zero."""
        state = super().init(model)
        zeros = {n: torch.zeros_like(state.broadcast[n]) for n in model.parameter_names("shared")}
        return replace(state, broadcast={**state.broadcast, **prefixed(SERVER, zeros)})

    def init_personal(self, client: Client) -> Tensors:
        """Return a client's first personal state: c_i is zero."""
        zeros = {n: torch.zeros_like(m) for n, m in under(SERVER, client.broadcast).items()}
        return {**super().init_personal(client), **prefixed(OWN, zeros)}

    def local_update(self, client: Client) -> Update:
        """Train with corrected gradients; the update holds the model and c_i+."""
        common, own = under(SERVER, client.broadcast), under(OWN, client.personal)
        drift = {name: common[name] - own[name] for name in common}
        client.tensors.update(prefixed(DRIFT, drift))
        metrics = client.train(self.objective, schedule=self.schedule)
        new = own
        if steps := int(metrics["steps"]):
            planned, local = client.planned_steps(), client.local
            factors = [self.schedule(min(k, planned - 1), planned) for k in range(steps)]
            weight = gradient_weight(factors, local.momentum, nesterov=local.nesterov)
            stepped = mean_gradients(client, common, weight)
            new = {name: stepped[name] - drift[name] for name in common}
        metrics["personal_steps"] = 0.0  # no personal model
        return client.update(
            metrics,
            extras=prefixed(SERVER, new),
            personal=prefixed(OWN, new),
        )

    def objective(self, client: Client, batch: Batch) -> Tensor:
        """Return the loss with m - c_i added to its gradient."""
        return with_drift(super().objective(client, batch), client, under(DRIFT, client.tensors))

    def aggregate(self, state: ServerState, total: Total) -> ServerState:
        """Return the next theta and m, each moved towards the cohort's mean by alpha or gamma."""
        moved = {
            name: torch.lerp(
                state.broadcast[name], mean, self.gamma if name.startswith(SERVER) else self.alpha
            )
            for name, mean in total.mean().items()
        }
        return replace(state, broadcast={**state.broadcast, **moved})
