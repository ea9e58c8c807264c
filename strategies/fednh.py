"""FedNH: class prototypes that start far apart and slowly follow the class means of features.

Dai et al., Tackling data heterogeneity in federated learning with class prototypes, AAAI 2023.
https://arxiv.org/abs/2212.02758
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch.nn.functional as F  # noqa: N812

from fedlt.config.ranges import Positive, Share
from fedlt.models import Model
from fedlt.models.class_statistics import ClassSums, client_features
from fedlt.models.prototype_head import PrototypeHead, PrototypeStart, move_prototypes
from fedlt.strategy import ServerState, Strategy, StrategyTraits, Total, Update

if TYPE_CHECKING:
    from fedlt.client import Client

PROTOTYPES = "heads.head.prototypes"
SUMS = "sums"  # extra of an update: sums of unit features by class


@dataclass(frozen=True)
class FedNH(Strategy):
    """Clients train the backbone against fixed class prototypes; the server moves the prototypes.

    After training, a client sums the unit features of its images by class, in evaluation mode, and
    sends these sums beside the model. SGD does not change the prototypes.
    """

    traits = StrategyTraits(own_weights=True, sends="class prototypes")

    momentum: Share = 0.9  # rho: share of the old prototype
    scale: Positive = 20.0  # first value of the learnable scale of the cosines
    start: PrototypeStart = "orthogonal"  # the first prototypes
    mean: Literal["plain", "examples"] = "plain"  # of the models: equal weights, or n_k

    def build(self, model: Model) -> None:
        """Add the head of prototypes and scale."""
        size = (model.num_features, model.num_classes)
        model.add_head("head", PrototypeHead(*size, scale=self.scale, start=self.start))

    def local_update(self, client: Client) -> Update:
        """Train all but the prototypes, then sum the trained model's unit features by class.

        An update is multiplied by its weight. The sums are divided by the weight first, so that
        the server gets the plain sums over the cohort.
        """
        names = client.model.parameter_names("shared") + client.model.parameter_names("personal")
        metrics = client.train(self.objective, only=[n for n in names if n != PROTOTYPES])
        features, labels = client_features(client.model, client.data, {})
        unit = F.normalize(features, dim=-1)  # (n S, D)
        sums = ClassSums.of(unit, labels, client.model.num_classes).sums  # (C, D)
        weight = 1.0 if self.mean == "plain" else float(max(client.data.num_examples, 1))
        return client.update(metrics, extras={SUMS: sums / weight}, weight=weight)

    def aggregate(self, state: ServerState, total: Total) -> ServerState:
        """Return the mean model and prototypes unit(rho w_c + (1 - rho) mu_c)."""
        moved = move_prototypes(state.broadcast[PROTOTYPES], total.sums[SUMS], self.momentum)
        models = {name: value for name, value in total.sums.items() if name != SUMS}
        new = super().aggregate(state, replace(total, sums=models))
        return replace(new, broadcast={**new.broadcast, PROTOTYPES: moved})
