"""FedDyn: Acar et al., Federated learning based on dynamic regularization, ICLR 2021.

https://arxiv.org/abs/2111.04263

    client k   w_k = argmin F_k(w) - <h_k, w> + alpha/2 |w - w_global|^2     by local SGD
               h_k <- h_k - alpha (w_k - w_global)
    server     h <- h - alpha/N sum over the cohort of (w_k - w_global)
               w_global <- mean(w_k) - h / alpha

Algorithm 1 of the paper. All means are plain: every client has the same weight.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fedlt.config.ranges import Positive
from fedlt.strategy import (
    ServerState,
    Strategy,
    StrategyTraits,
    Tensors,
    Total,
    Update,
    prefixed,
    under,
)
from strategies.scaffold import with_drift

if TYPE_CHECKING:
    from fedlt.client import Batch, Client
    from fedlt.models import Model

OWN = "h/"  # prefix of the names of h_k


@dataclass(frozen=True)
class FedDyn(Strategy):
    """Clients train with a dynamic regulariser, so that their minima agree with the global one.

    FedDyn does not become FedAvg for a small alpha. h / alpha is the sum of all past steps over N,
    so the first round takes the plain mean step 1 + |cohort| / N times.
    """

    traits = StrategyTraits(own_weights=True, sends="the number of clients in a round")

    alpha: Positive = 0.1  # weight of the regulariser

    def init(self, model: Model) -> ServerState:
        """Return the first state: h is zero, and never leaves the server."""
        state = super().init(model)
        names = model.parameter_names("shared")
        return replace(state, private={n: torch.zeros_like(state.broadcast[n]) for n in names})

    def init_personal(self, client: Client) -> Tensors:
        """Return a client's first personal state: h_k is zero."""
        names = client.model.parameter_names("shared")
        zeros = {n: torch.zeros_like(client.broadcast[n]) for n in names}
        return {**super().init_personal(client), **prefixed(OWN, zeros)}

    def local_update(self, client: Client) -> Update:
        """Train on the regularised loss and update h_k."""
        own = under(OWN, client.personal)
        client.tensors.update(prefixed(OWN, own))
        metrics = client.train(self.objective)
        state = client.model.state()
        new = {n: h - self.alpha * (state[n] - client.broadcast[n]) for n, h in own.items()}
        metrics["personal_steps"] = 0.0  # no personal model
        return client.update(metrics, weight=1.0, personal=prefixed(OWN, new))

    def objective(self, client: Client, batch: Batch) -> Tensor:
        """Return F_k + alpha/2 |w - w_global|^2, with -h_k added to its gradient."""
        loss, own = super().objective(client, batch), under(OWN, client.tensors)
        if not own:  # outside a round: personal.refresh tunes a finished model
            return loss
        loss = loss + 0.5 * self.alpha * client.squared_distance(client.broadcast)
        return with_drift(loss, client, {name: -h for name, h in own.items()})

    def aggregate(self, state: ServerState, total: Total) -> ServerState:
        """Return the next h and w_global."""
        part = total.weight / total.num_clients  # |cohort| / N
        broadcast, private = dict(state.broadcast), {}
        for name, mean in total.mean().items():
            private[name] = state.private[name] - self.alpha * part * (mean - broadcast[name])
            broadcast[name] = mean - private[name] / self.alpha
        return replace(state, broadcast=broadcast, private=private)
