"""CReFF: a head retrained on synthetic features that the server fits to the clients' gradients.

Shang et al., Federated learning on heterogeneous and long-tailed data via classifier re-training
with federated features, IJCAI 2022. https://arxiv.org/abs/2204.13399
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fedlt.config.ranges import Count, Positive
from fedlt.models import LinearHead, Model
from fedlt.models.gradient_matching import client_gradients, match_features
from fedlt.models.linear_probe import ProbeSettings, draw_head, train_head
from fedlt.rng import torch_generator
from fedlt.strategy import Strategy, StrategyTraits
from fedlt.update import HeadFunction, ServerState, Tensors, Total, Update, prefixed

if TYPE_CHECKING:
    from fedlt.client import Batch, Client

V, FEATURES = "heads.retrained.", "federated_features"


@dataclass(frozen=True)
class CReFF(Strategy):
    """FedAvg plus a second head, retrained on the server each round from synthetic features.

    A client first computes the gradient of the retrained head for each class that it holds, under
    the received model. Then it trains FedAvg's model. The server fits the synthetic ("federated")
    features to the mean gradients.
    """

    traits = StrategyTraits(needs_linear_heads=True, sends="class gradients")

    per_class: Count = 100  # federated features of each class
    gradient_batches: Count = 10  # number of batches whose mean is the gradient of a class
    gradient_batch_size: Count = 32  # images of a batch, at most
    match_steps: Count = 100
    match_lr: Positive = 0.1
    retrain_epochs: Count = 300
    retrain_lr: Positive = 0.01

    def build(self, model: Model) -> None:
        """Add FedAvg's head and the retrained one."""
        super().build(model)
        model.add_head("retrained", LinearHead(model.num_features, model.num_classes))

    def local_update(self, client: Client) -> Update:
        """Return class gradients under the received model, and the model trained after that."""
        received = client.broadcast
        gradients = client_gradients(
            client.model,
            client.data,
            received,
            received[f"{V}weight"],
            received[f"{V}bias"],
            augment=client.local.augment,
            batches=self.gradient_batches,
            batch_size=self.gradient_batch_size,
            generator=torch_generator(client.seed, "class gradients", client.round, client.cid),
        )
        names = client.model.parameter_names("shared") + client.model.parameter_names("personal")
        metrics = client.train(self.objective, only=[n for n in names if not n.startswith(V)])
        held = (client.data.class_counts > 0).float()
        return client.update(metrics, plain={"gradients": gradients, "held": held})

    def aggregate(self, state: ServerState, total: Total) -> ServerState:
        """Return the mean of the models, and a new head trained on the re-fitted features."""
        weight, bias = state.broadcast[f"{V}weight"], state.broadcast[f"{V}bias"]
        generator = torch_generator(total.seed, "creff", state.round)
        features = state.private.get(FEATURES)
        if features is None:
            size = (len(bias), self.per_class, weight.shape[1])
            features = torch.randn(size, generator=generator)
        held = total.plain["held"]  # (C,) number of clients that hold each class
        wanted = total.plain["gradients"] / held.clamp(min=1)[:, None, None]
        features = match_features(
            features, wanted, held > 0, weight, bias, steps=self.match_steps, lr=self.match_lr
        )
        settings = ProbeSettings(self.retrain_epochs, self.retrain_lr)
        labels = torch.arange(len(bias)).repeat_interleave(self.per_class)
        start = draw_head(weight.shape[1], len(bias), generator)
        head = train_head(start, features.flatten(0, 1), labels, settings, generator)
        new = super().aggregate(state, total)
        broadcast = {**new.broadcast, **prefixed(V, head)}
        return replace(new, broadcast=broadcast, private={**new.private, FEATURES: features})

    def generic(self, model: Model, broadcast: Mapping[str, Tensor]) -> dict[str, HeadFunction]:
        """Return the retrained head, then FedAvg's."""
        return {name: model.heads[name] for name in ("retrained", "head")}

    def personal(
        self, model: Model, broadcast: Mapping[str, Tensor], personal: Mapping[str, Tensor]
    ) -> dict[str, HeadFunction]:
        """Return the generic heads: the method has no personal part."""
        return self.generic(model, broadcast)

    def refresh(self, client: Client, *, scope: str, epochs: int) -> Tensors:
        """Return personal tensors after tuning the retrained head; scope ``all``: backbone too."""
        names = client.model.parameter_names("shared") + client.model.parameter_names("personal")
        chosen = [n for n in names if n.startswith((V, "" if scope == "all" else V))]
        client.train(_retrained_loss, epochs=epochs, only=chosen)
        state = client.model.state()
        return {**client.personal, **{n: state[n] for n in client.model.names("personal")}}


def _retrained_loss(client: Client, batch: Batch) -> Tensor:
    model = client.model
    return client.plugin.loss(model.heads["retrained"](model.features(batch.images)), batch, client)
