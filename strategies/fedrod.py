"""FedROD: one generic and one personal predictor on a shared backbone.

Chen and Chao, On bridging generic and personalized federated learning for image classification,
ICLR 2022. https://arxiv.org/abs/2107.00778
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor

from fedlt.losses import balanced_softmax
from fedlt.methods.composition import is_plain, own_cross_entropy, weighted
from fedlt.models import LinearHead, Model
from fedlt.strategy import HeadFunction, Strategy, StrategyTraits

if TYPE_CHECKING:
    from fedlt.client import Batch, Client


@dataclass(frozen=True)
class FedROD(Strategy):
    """Generic head with a balanced loss, plus a personal head trained by plain cross-entropy.

    Backbone and generic head learn by balanced softmax under the file's prior, or by the loss of a
    client plugin that has one. The personal head learns by cross-entropy on the sum of generic and
    personal logits. Its features and the generic logits are detached.
    """

    traits = StrategyTraits(sends="", trains_once=True)

    def build(self, model: Model) -> None:
        """Add the heads ``head`` (shared) and ``personal``."""
        super().build(model)
        own = LinearHead(model.num_features, model.num_classes)
        model.add_head("personal", own, group="personal")

    def objective(self, client: Client, batch: Batch) -> Tensor:
        """Return generic loss + personal loss; the two train different parameters."""
        heads = client.model.heads
        features = client.model.features(batch.images)  # (B, S, D)
        logits = heads["head"](features)  # (B, S, C)
        both = logits.detach() + heads["personal"](features.detach())
        return _generic_loss(client, logits, batch) + own_cross_entropy(both, batch)

    def generic(self, model: Model, broadcast: Mapping[str, Tensor]) -> dict[str, HeadFunction]:
        """Return the generic head."""
        return {"head": model.heads["head"]}

    def personal(
        self, model: Model, broadcast: Mapping[str, Tensor], personal: Mapping[str, Tensor]
    ) -> dict[str, HeadFunction]:
        """Return the sum of both heads' logits, then the personal head alone."""
        own = model.heads["personal"]
        return {"sum": partial(_sum, model.heads["head"], own), "personal": own}


def _generic_loss(client: Client, logits: Tensor, batch: Batch) -> Tensor:
    """Return balanced softmax, or the plugin's loss where it is not plain cross-entropy."""
    if is_plain(client.plugin):
        log_prior = client.tensors["log_prior"]
        return weighted(lambda z, b: balanced_softmax(z, b.labels, log_prior), logits, batch)
    return client.plugin.loss(logits, batch, client)


def _sum(first: HeadFunction, second: HeadFunction, features: Tensor) -> Tensor:
    return first(features) + second(features)
