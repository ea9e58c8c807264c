"""MOON: Li et al., Model-contrastive federated learning, CVPR 2021.

https://arxiv.org/abs/2103.16257
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedlt.config.ranges import NotNegative, Positive
from fedlt.losses import model_contrast
from fedlt.strategy import Update, prefixed, under
from strategies.fedavg import FedAvg

if TYPE_CHECKING:
    from torch import Tensor

    from fedlt.client import Batch, Client

PREVIOUS = "previous/"  # prefix of the names of the client's last trained model


@dataclass(frozen=True)
class MOON(FedAvg):
    """FedAvg; features are pulled to the global model's and pushed off the client's last model's.

    The features are the backbone's. In a client's first round the last local model is the global
    one, and the term is the constant log 2. With mu = 0 the method is FedAvg, bit for bit.
    """

    mu: NotNegative = 1.0  # weight of the contrastive term
    temperature: Positive = 0.5

    def local_update(self, client: Client) -> Update:
        """Train with the contrastive term; the trained model becomes the next previous model."""
        previous = under(PREVIOUS, client.personal) or client.snapshot()
        client.tensors.update(prefixed(PREVIOUS, previous))
        metrics = client.train(self.objective)
        metrics["personal_steps"] = 0.0  # no personal model
        return client.update(metrics, personal=client.snapshot(PREVIOUS))

    def objective(self, client: Client, batch: Batch) -> Tensor:
        """Return the loss plus mu times the model-contrastive loss, eq. 4 of the paper."""
        previous = under(PREVIOUS, client.tensors)
        if not previous:  # outside a round: personal.refresh tunes a finished model
            return super().objective(client, batch)
        features = client.model.features(batch.images)  # (B, S, D)
        contrast = model_contrast(
            features,
            client.frozen_features(client.broadcast, batch.images),
            client.frozen_features(previous, batch.images),
            temperature=self.temperature,
        )
        loss = client.plugin.loss(client.model.heads["head"](features), batch, client)
        return loss + self.mu * contrast
