"""FedBABU: Oh et al., FedBABU: Toward enhanced representation for federated image classification.

ICLR 2022, https://arxiv.org/abs/2106.06042, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fedlt.config.ranges import Count
from fedlt.models import FixedHead, LinearHead
from fedlt.strategy import HeadFunction, Strategy, StrategyTraits, Tensors, Update

if TYPE_CHECKING:
    from torch import Tensor

    from fedlt.client import Batch, Client
    from fedlt.models import Model


@dataclass(frozen=True)
class FedBABU(Strategy):
    """FedAvg of the backbone under one fixed random head; clients tune just before scoring.

    Tuning takes ``epochs`` passes, on the whole model or on the head alone.
    """

    traits = StrategyTraits(needs_linear_heads=True, sends="")

    scope: Literal["all", "head"] = "all"  # parameters that are tuned
    epochs: Count = 5

    def build(self, model: Model) -> None:
        """Add the random head twice: fixed for the generic model, and a copy for tuning."""
        head = LinearHead(model.num_features, model.num_classes)
        model.add_head("initial", FixedHead(head.weight, head.bias))
        model.add_head("head", head, group="personal")

    def local_update(self, client: Client) -> Update:
        """Train the backbone; the head stays as it is."""
        return client.update({**client.train(self.objective, only="body"), "personal_steps": 0.0})

    def objective(self, client: Client, batch: Batch) -> Tensor:
        """Return the loss under the tunable head, which equals the random head during training."""
        logits = client.model.heads["head"](client.model.features(batch.images))
        return client.plugin.loss(logits, batch, client)

    def generic(self, model: Model, broadcast: Mapping[str, Tensor]) -> dict[str, HeadFunction]:
        """Return the random head over the trained backbone."""
        return {"head": model.heads["initial"]}

    def personal(
        self, model: Model, broadcast: Mapping[str, Tensor], personal: Mapping[str, Tensor]
    ) -> dict[str, HeadFunction]:
        """Return the tuned head."""
        return {"head": model.heads["head"]}

    @property
    def adapt_epochs(self) -> int:
        """Passes over a client's data just before scoring."""
        return self.epochs

    def adapt(self, client: Client) -> Tensors:
        """Return the tensors of the model tuned on the client's data."""
        return self.refresh(client, scope=self.scope, epochs=self.epochs)
