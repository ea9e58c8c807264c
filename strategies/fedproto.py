"""FedProto: Tan et al., FedProto: Federated prototype learning across heterogeneous clients.

AAAI 2022, https://arxiv.org/abs/2105.00243, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fedlt.config.ranges import NotNegative
from fedlt.losses import nearest_prototype, prototype_distance
from fedlt.strategy import (
    HeadFunction,
    ServerState,
    Strategy,
    StrategyTraits,
    Tensors,
    Total,
    Update,
)

if TYPE_CHECKING:
    from fedlt.client import Batch, Client
    from fedlt.models import Model


@dataclass(frozen=True)
class FedProto(Strategy):
    """Personal models; only class prototypes travel, and clients pull their features towards them.

    There is no generic model.
    """

    traits = StrategyTraits(reads_labels=True, sends="class prototypes")

    lam: NotNegative = 1.0  # lambda: weight of the distance to the prototypes

    def build(self, model: Model) -> None:
        """Make the whole model personal."""
        super().build(model)
        for name in model.names("shared"):
            model.set_group(name, "personal")

    def init(self, model: Model) -> ServerState:
        """Return the first state, in which no class has a prototype."""
        state, classes = super().init(model), model.num_classes
        empty = torch.zeros(classes, model.num_streams, model.num_features)
        return replace(state, broadcast={"prototypes": empty, "known": torch.zeros(classes)})

    def objective(self, client: Client, batch: Batch) -> Tensor:
        """Return CE + lambda * distance of features to the global prototypes of their classes."""
        features = client.model.features(batch.images)  # (B, S, D)
        given = client.broadcast["prototypes"], client.broadcast["known"]
        distance = prototype_distance(features, batch.labels, *given)
        loss = client.plugin.loss(client.model.heads["head"](features), batch, client)
        return loss + self.lam * distance

    def local_update(self, client: Client) -> Update:
        """Train; the update holds the mean feature of every class that the client has."""
        metrics = client.train(self.objective)
        sums = torch.zeros_like(client.broadcast["prototypes"])  # (C, S, D)
        counts = torch.zeros_like(client.broadcast["known"])  # (C,)
        client.model.eval()
        with torch.no_grad():
            for batch in client.batches(1):
                sums.index_add_(0, batch.labels, client.model.features(batch.images))
                counts.index_add_(0, batch.labels, torch.ones_like(batch.labels, dtype=sums.dtype))
        own: Tensors = {
            "prototypes": sums / counts.clamp(min=1)[:, None, None],
            "holders": (counts > 0).to(sums.dtype),
        }
        return client.update(metrics, plain=own)

    def aggregate(self, state: ServerState, total: Total) -> ServerState:
        """Return each class's mean over the clients that have it; other prototypes stay."""
        old, holders = state.broadcast, total.plain["holders"]
        mean = total.plain["prototypes"] / holders.clamp(min=1)[:, None, None]
        seen = holders > 0
        new = torch.where(seen[:, None, None], mean, old["prototypes"])
        known = torch.maximum(old["known"], seen.to(mean.dtype))
        return replace(state, broadcast={**old, "prototypes": new, "known": known})

    def generic(self, model: Model, broadcast: Mapping[str, Tensor]) -> dict[str, HeadFunction]:
        """Return no head: the clients share no backbone."""
        return {}

    def personal(
        self, model: Model, broadcast: Mapping[str, Tensor], personal: Mapping[str, Tensor]
    ) -> dict[str, HeadFunction]:
        """Return the nearest-prototype classifier of the paper, then the client's own head."""
        known, prototypes = broadcast["known"], broadcast["prototypes"]
        nearest = partial(nearest_prototype, prototypes=prototypes, known=known)
        return {"prototypes": nearest, "head": model.heads["head"]}
