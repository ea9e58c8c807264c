"""FedETF: a fixed simplex classifier behind a learnt projection; clients tune a copy.

Li et al., No fear of classifier biases: neural collapse inspired federated learning with synthetic
and fixed classifier, ICCV 2023. https://arxiv.org/abs/2303.10058
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, cast

from torch import Tensor

from fedlt.config.ranges import Count, Positive, Whole
from fedlt.losses import balanced_softmax
from fedlt.methods.composition import is_plain, weighted
from fedlt.models import Model
from fedlt.models.class_statistics import client_features
from fedlt.models.etf_head import EtfHead, descend_on
from fedlt.rng import torch_generator
from fedlt.strategy import HeadFunction, Strategy, StrategyTraits, Tensors

if TYPE_CHECKING:
    from fedlt.client import Batch, Client


@dataclass(frozen=True)
class FedETF(Strategy):
    """Fixed simplex (ETF) classifier behind a learnt projection, trained by balanced softmax.

    Logits are ``scale * cos(projection of features, class vector)``; the prior of the loss is the
    client's class counts. Just before scoring, a client tunes class vectors and projection in turns
    by cross-entropy on its features. Only the projection has the file's momentum and weight decay.
    """

    traits = StrategyTraits(sends="")

    scale: Positive = 1.0  # where the learnable scale of the cosines starts
    alternations: Whole = 20  # turns of tuning class vectors, then projection; 0: no personal model
    tune_epochs: Count = 3  # passes over the client's features in each half of a turn
    classes_lr: Positive = 0.1  # learning rate of the class vectors
    projection_lr: Positive = 0.05  # learning rate of the projection

    @property
    def adapt_epochs(self) -> int:
        """Passes over a client's features in all turns together."""
        return 2 * self.alternations * self.tune_epochs

    def build(self, model: Model) -> None:
        """Add a head of projection and scale (shared) and simplex class vectors (fixed)."""
        generator = torch_generator(0, "fedetf frame")  # the same for every seed
        head = EtfHead(model.num_features, model.num_classes, generator, self.scale)
        model.add_head("head", head)
        model.set_group("heads.head.classes", "fixed")

    def objective(self, client: Client, batch: Batch) -> Tensor:
        """Return balanced softmax with the client's counts, at least 1; or a plugin's own loss."""
        features = client.model.features(batch.images)  # (B, S, D)
        logits = client.model.heads["head"](features, client.tensors.get("classes"))
        if not is_plain(client.plugin):
            return client.plugin.loss(logits, batch, client)
        prior = client.tensors["class_counts"].clamp(min=1).float().log()
        return weighted(lambda z, b: balanced_softmax(z, b.labels, prior), logits, batch)

    def adapt(self, client: Client) -> Tensors:
        """Return class vectors tuned in turns with the projection, on frozen-backbone features."""
        head = cast(EtfHead, client.model.heads["head"])
        features, labels = client_features(client.model, client.data, {})
        classes = head.classes.clone().requires_grad_()
        local, projection = client.local, list(head.projection.parameters())
        phases = (
            ([classes], self.classes_lr, 0.0, 0.0),
            (projection, self.projection_lr, local.momentum, local.weight_decay),
        )
        generator = torch_generator(client.seed, "fedetf tuning", client.round, client.cid)
        for trained, lr, momentum, weight_decay in phases * self.alternations:
            client.steps_done += descend_on(
                cast(list[Tensor], trained),
                head,
                classes,
                features,
                labels,
                lr=lr,
                momentum=momentum,
                weight_decay=weight_decay,
                batch_size=local.batch_size,
                epochs=self.tune_epochs,
                generator=generator,
                nesterov=local.nesterov,
                clip=local.clip,
            )
        client.tensors["classes"] = classes.detach()  # for personal.refresh, which goes on
        return {**client.personal, "classes": classes.detach()}

    def personal(
        self, model: Model, broadcast: Mapping[str, Tensor], personal: Mapping[str, Tensor]
    ) -> dict[str, HeadFunction]:
        """Return the head with the client's class vectors; before tuning, the fixed ones."""
        return {"head": partial(model.heads["head"], classes=personal.get("classes"))}
