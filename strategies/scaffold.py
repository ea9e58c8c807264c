"""SCAFFOLD: Karimireddy et al., Stochastic controlled averaging, ICML 2020.

https://arxiv.org/abs/1910.06378

    client k   y <- y - eta (g(y) - c_k + c)                     K times from y = x    (eq. 3)
               c_k+ = c_k - c + (x - y) / (K eta)                option II             (eq. 4)
    server     x <- x + eta_g mean(y - x),  c <- c + sum(c_k+ - c_k) / N               (eq. 5)

All means are plain: every client has the same weight. Under momentum, (x - y) / eta holds each
gradient several times. So K is the number of gradients in the steps, not the number of steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import repeat
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fedlt.config.ranges import Positive
from fedlt.optim.sgd import gradient_weight
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

if TYPE_CHECKING:
    from fedlt.client import Batch, Client
    from fedlt.models import Model

SERVER, OWN, DRIFT = "c/", "c_k/", "drift/"  # prefixes of the names of c, c_k and c - c_k


def mean_gradients(client: Client, names: Mapping[str, Tensor], weight: float) -> Tensors:
    """Return the client's mean gradient by parameter, (x - y) / (weight eta).

    Args:
        client: Client after training: ``client.model`` is y, ``client.broadcast`` holds x.
        names: Shared parameters; eta is the learning rate of each parameter.
        weight: :func:`fedlt.optim.sgd.gradient_weight` of the client's steps, above 0.
    """
    after = client.model.state()
    return {n: (client.broadcast[n] - after[n]) / (weight * client.learning_rate(n)) for n in names}


def with_drift(loss: Tensor, client: Client, drift: Mapping[str, Tensor]) -> Tensor:
    """Return ``loss`` with ``drift`` added to its gradient; its value does not change.

    The drift is empty outside a round, where ``personal.refresh`` tunes a finished model.
    """
    if not drift:
        return loss
    product = client.inner_product(drift)
    return loss + (product - product.detach())


@dataclass(frozen=True)
class SCAFFOLD(Strategy):
    """FedAvg with control variates, which correct each local step for the client's drift.

    Means are plain. In the first round every variate is zero, so the round is FedAvg's with plain
    means.
    """

    traits = StrategyTraits(needs_sgd=True, knows=("nesterov",), own_weights=True,
                            sends="control variates")  # fmt: skip
    server_lr: Positive = 1.0  # eta_g

    def init(self, model: Model) -> ServerState:
        """Return the first state: c is zero."""
        state = super().init(model)
        zeros = {n: torch.zeros_like(state.broadcast[n]) for n in model.parameter_names("shared")}
        return replace(state, broadcast={**state.broadcast, **prefixed(SERVER, zeros)})

    def init_personal(self, client: Client) -> Tensors:
        """Return a client's first personal state: c_k is zero."""
        zeros = {n: torch.zeros_like(c) for n, c in under(SERVER, client.broadcast).items()}
        return {**super().init_personal(client), **prefixed(OWN, zeros)}

    def local_update(self, client: Client) -> Update:
        """Train with corrected gradients and update c_k."""
        common, own = under(SERVER, client.broadcast), under(OWN, client.personal)
        drift = {name: common[name] - own[name] for name in common}
        client.tensors.update(prefixed(DRIFT, drift))
        metrics = client.train(self.objective)
        steps = int(metrics["steps"])
        new = own
        if steps:
            factors, local = repeat(1.0, steps), client.local
            weight = gradient_weight(factors, local.momentum, nesterov=local.nesterov)
            stepped = mean_gradients(client, common, weight)
            new = {name: stepped[name] - drift[name] for name in common}  # (4)
        change = {name: new[name] - own[name] for name in common}
        metrics["personal_steps"] = 0.0  # no personal model
        sent, own = prefixed(SERVER, change), prefixed(OWN, new)
        return client.update(metrics, weight=1.0, extras=sent, personal=own)

    def objective(self, client: Client, batch: Batch) -> Tensor:
        """Return the loss with c - c_k added to its gradient, eq. 3."""
        return with_drift(super().objective(client, batch), client, under(DRIFT, client.tensors))

    def aggregate(self, state: ServerState, total: Total) -> ServerState:
        """Return the next x and c, eq. 5."""
        moved = {}
        for name, mean in total.mean().items():
            old = state.broadcast[name]
            if name.startswith(SERVER):
                moved[name] = old + total.sums[name] / total.num_clients
            else:
                moved[name] = torch.lerp(old, mean, self.server_lr)
        return replace(state, broadcast={**state.broadcast, **moved})
