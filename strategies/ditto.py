"""Ditto: Li et al., Ditto: Fair and robust federated learning through personalization.

ICML 2021, https://arxiv.org/abs/2012.04221, algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedlt.client import add_metrics
from fedlt.config.ranges import NotNegative
from fedlt.strategy import StrategyTraits, Update, under
from strategies.fedavg import FedAvg

if TYPE_CHECKING:
    from torch import Tensor

    from fedlt.client import Batch, Client


@dataclass(frozen=True)
class Ditto(FedAvg):
    """FedAvg plus a personal model per client, held near the global model by a proximal term.

    The personal model starts at the global model of the client's first round.
    """

    traits = StrategyTraits(own_model="own.", sends="")

    lam: NotNegative = 1.0  # lambda: weight of the proximal term

    def local_update(self, client: Client) -> Update:
        """Train the copy of the global model, then the personal one, on the same batches.

        The paper alternates single steps of the two models. Neither model reads the other during a
        round, so the result is the same.
        """
        model = client.model
        start = under(self.traits.own_model, client.personal) or client.snapshot()
        common = client.train(self.objective)
        answer = client.snapshot()
        model.load(start, start)
        client.epochs_done = 0
        own = client.train(self.near_global)
        kept = {name: answer[name] for name in model.names("personal")}
        return client.update(
            {**add_metrics(common, own), "personal_steps": own["steps"]},
            shared=answer,
            personal={**kept, **client.snapshot(self.traits.own_model)},
        )

    def near_global(self, client: Client, batch: Batch) -> Tensor:
        """Return F_k(v) + lambda/2 |v - w|^2, w the global model of this round."""
        drift = client.squared_distance(client.broadcast)
        return self.objective(client, batch) + 0.5 * self.lam * drift
