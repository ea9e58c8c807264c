"""CCVR: FedAvg, then a classifier retrained on features drawn from class Gaussians.

Luo et al., No fear of heterogeneity: classifier calibration for federated learning with non-IID
data, NeurIPS 2021. https://arxiv.org/abs/2106.05001
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import torch

from fedlt.config.ranges import Count, Positive, ShareBelowOne, Whole
from fedlt.losses import cross_entropy
from fedlt.models.calibration import Allocation, Calibration, Covariance
from fedlt.models.class_statistics import ClassSums, client_features
from fedlt.rng import torch_generator
from fedlt.strategy import ServerState, StrategyTraits, Total, Update, under
from strategies.fedavg import FedAvg

if TYPE_CHECKING:
    from fedlt.client import Client


@dataclass(frozen=True)
class CCVR(FedAvg):
    """FedAvg; in the last round the head is retrained on features drawn from class Gaussians.

    Clients do not train in the last round. They send the count, sum and second moment of each
    class's features under the received model. The server draws features of every class and trains
    the head on them. Classes that the cohort does not hold keep their class vectors.
    """

    traits = StrategyTraits(needs_linear_heads=True, sends="class means and covariances")

    covariance: Covariance = Calibration.covariance  # full covariances take C D^2 numbers a client
    allocation: Allocation = Calibration.allocation  # equal, or in proportion to a class's images
    per_class: Count = Calibration.per_class  # M_c: features drawn from each class, on average
    epochs: Whole = Calibration.epochs  # passes over the drawn features
    lr: Positive = Calibration.lr
    momentum: ShareBelowOne = Calibration.momentum
    batch_size: Count = Calibration.batch_size

    def calibration(self) -> Calibration:
        """Return the hyperparameters of the calibration as one value."""
        return Calibration(**{f.name: getattr(self, f.name) for f in fields(Calibration)})

    def local_update(self, client: Client) -> Update:
        """Train as FedAvg does; in the last round, send feature statistics instead."""
        if client.round < client.rounds:
            return super().local_update(client)
        features, labels = client_features(client.model, client.data, client.broadcast)
        with torch.no_grad():
            logits = client.model.heads["head"](features)
            loss = cross_entropy(logits, labels) if len(labels) else logits.sum()
        examples = float(client.data.num_examples)
        metrics = {"loss": float(loss) * examples, "examples": examples, "steps": 0.0}
        sums = ClassSums.of(features, labels, client.model.num_classes, self.covariance)
        return client.update(metrics, plain=sums.tensors("features/"))

    def aggregate(self, state: ServerState, total: Total) -> ServerState:
        """Return FedAvg's mean; in the last round, the old model with a retrained head."""
        if not total.plain:
            return super().aggregate(state, total)
        sums = ClassSums.from_tensors(total.plain, "features/")
        generator, name = torch_generator(total.seed, "ccvr", state.round), "heads.head."
        head = self.calibration().calibrate(under(name, state.broadcast), sums, generator)
        retrained = {f"{name}{part}": value for part, value in head.items()}
        return replace(state, broadcast={**state.broadcast, **retrained})
