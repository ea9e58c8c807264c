"""pFedMe: Dinh et al., Personalized federated learning with Moreau envelopes, NeurIPS 2020.

https://arxiv.org/abs/2006.08848, algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fedlt.client import add_metrics
from fedlt.config.ranges import Count, Positive
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
    from torch import Tensor

    from fedlt.client import Batch, Client


@dataclass(frozen=True)
class PFedMe(Strategy):
    """Personal model held near a copy of the global model; the copy follows the personal model.

    theta is the personal model of client k, w_k the client's copy of the global model.
    ``local.lr`` is the learning rate of the inner steps, which diverge if it is too large for
    ``lam``.
    """

    traits = StrategyTraits(own_model="own.", own_weights=True, sends="")

    lam: Positive = 15.0  # lambda: weight of the proximal term |theta - w_k|^2 / 2
    inner_steps: Count = 5  # K: steps on theta with one batch
    outer_lr: Positive = 0.005  # eta: learning rate of w_k
    beta: Positive = 1.0  # server's step towards the mean; 1: the mean itself

    def __post_init__(self) -> None:
        """Refuse an outer step that diverges."""
        if self.outer_lr * self.lam > 1:
            product = self.outer_lr * self.lam
            raise ValueError(f"outer_lr: times lam it is {product:g}, above 1, which diverges")

    def local_update(self, client: Client) -> Update:
        """Solve one inner problem per batch, each started at the last solution; then step w_k."""
        model, rate = client.model, self.outer_lr * self.lam
        center = {name: client.broadcast[name] for name in model.parameter_names("shared")}
        self._check_rate(client, center)
        metrics = {"loss": 0.0, "examples": 0.0, "steps": 0.0}
        for batch in client.batches():
            client.tensors.update(prefixed("center.", center))
            done = client.train(self.near_center, batches=[batch] * self.inner_steps)
            metrics, theta = add_metrics(metrics, done), model.state()
            center = {n: w - rate * (w - theta[n]) for n, w in center.items()}
        answer = {**client.snapshot(), **center}
        own = client.snapshot(self.traits.own_model)
        weight = 1.0 if client.data.num_examples else None  # a client without images has weight 0
        return client.update(metrics, shared=answer, personal=own, weight=weight)

    def near_center(self, client: Client, batch: Batch) -> Tensor:
        """Return f(theta) + lambda/2 |theta - w_k|^2."""
        drift = client.squared_distance(under("center.", client.tensors))
        return self.objective(client, batch) + 0.5 * self.lam * drift

    def aggregate(self, state: ServerState, total: Total) -> ServerState:
        """Return (1 - beta) w + beta mean(w_k); the mean is plain."""
        moved: Tensors = {
            name: (1 - self.beta) * state.broadcast[name] + self.beta * value
            for name, value in total.mean().items()
        }
        return replace(state, broadcast={**state.broadcast, **moved})

    def _check_rate(self, client: Client, names: Tensors) -> None:
        """Refuse rates at which SGD diverges on the proximal term.

        rate * lambda > 2 (1 + m), or 2 (1 + m) / (1 + 2 m) with Nesterov's momentum: then an
        eigenvalue of the step of (theta, buffer) on lambda/2 theta^2 lies below -1.
        """
        rate = max((client.learning_rate(name) for name in names), default=0.0)
        m, is_nesterov = client.local.momentum, client.local.nesterov
        bound = 2 * (1 + m) / (1 + 2 * m if is_nesterov else 1)
        if rate * self.lam > bound:
            product = rate * self.lam
            raise ValueError(f"lam: times local.lr it is {product:g}, above {bound:g}: it diverges")
