"""BalanceFL: Shuai et al., Addressing class imbalance in long-tail federated learning, IPSN 2022.

https://doi.org/10.1109/IPSN54338.2022.00029
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from fedlt.config.ranges import NotNegative, Positive
from fedlt.data.batches import make_batches
from fedlt.data.prior import ABSENT
from fedlt.losses import entropy, masked_divergence
from fedlt.models.class_statistics import class_deviations, rows_of
from fedlt.rng import torch_generator
from fedlt.strategy import StrategyTraits
from strategies.fedavg import FedAvg

if TYPE_CHECKING:
    from torch import Tensor

    from fedlt.client import Batch, Client
    from fedlt.strategy import Update


@dataclass(frozen=True)
class BalanceFL(FedAvg):
    """FedAvg on class-balanced batches; classes a client lacks are distilled from the global model.

    Features of rarer classes get Gaussian noise with the covariance within the classes. All batches
    of a task are made before training: memory for the floats of all their images.
    """

    traits = StrategyTraits(reads_labels=True, sends="")

    weight: NotNegative = 1.0  # weight of the distillation of absent classes
    tau: Positive = 2.0  # temperature of the distillation
    smooth: NotNegative = 0.1  # weight of the entropy over the held classes, which is kept high
    noise: NotNegative = 1.0  # factor of the noise on features; 0: no noise

    def local_update(self, client: Client) -> Update:
        """Train on class-balanced batches, which carry noise for their features."""
        client.keep_start()
        draws = torch_generator(client.seed, "balanced", client.round, client.cid)
        data, batches = client.data, []
        if data.num_examples:
            rows = self._deviations(client, draws)
            counts = data.class_counts.cpu()
            rarity = 1 / counts[data.labels[data.indices.to(data.labels.device)].cpu()].double()
            for _ in range(self._passes(client)):
                drawn = torch.multinomial(rarity, len(rarity), replacement=True, generator=draws)
                client.data = replace(data, indices=data.indices[drawn])
                batches += [_with_noise(b, counts, rows, draws) for b in client.batches(1)]
            client.data = data
            if client.local.steps is not None:
                batches = batches[: client.steps_in() or client.local.steps]
        return client.update(client.train(self.objective, batches=batches))

    @staticmethod
    def _passes(client: Client) -> int:
        """Return the passes over the client's images that the task begins."""
        return -(-client.planned_steps() // client.planned_steps(1))

    def _deviations(self, client: Client, draws: torch.Generator) -> Tensor:
        """Return ``noise`` times the deviations (n, D) of the received model's features."""
        data, start, found = client.data, client.start(), []
        given = make_batches(
            data.images,
            data.indices,
            batch_size=256,
            augment="none",
            mean=data.mean,
            std=data.std,
            generator=draws,
        )
        for images, rows in given:
            features = client.frozen_features(start, images)  # (B, S, D)
            found.append(rows_of(features, data.labels[rows]))
        features, labels = (torch.cat(parts) for parts in zip(*found, strict=True))
        return self.noise * class_deviations(features, labels, client.model.num_classes)

    def objective(self, client: Client, batch: Batch) -> Tensor:
        """Return CE on held classes + distillation on absent classes - entropy on held classes."""
        features = client.model.features(batch.images)  # (B, S, D)
        head = client.model.heads["head"]
        logits = head(features)
        noisy = head(features + batch.extra["noise"]) if "noise" in batch.extra else logits
        held = client.tensors["class_counts"] > 0  # (C,)
        own = client.plugin.loss(torch.where(held, noisy, ABSENT), batch, client)
        teacher = client.frozen_logits(client.start(), batch.images)
        kept = masked_divergence(logits, teacher, ~held, ~held, tau=self.tau)
        spread = entropy(torch.where(held, logits, ABSENT))
        return own + self.weight * kept - self.smooth * spread


def _with_noise(batch: Batch, counts: Tensor, rows: Tensor, draws: torch.Generator) -> Batch:
    """Return the batch; an image of class c gets noise with probability 1 - n_c / n_max."""
    labels = batch.labels.cpu()
    is_noisy = torch.rand(len(labels), generator=draws) < 1 - counts[labels] / counts.max()
    normal = torch.randn((len(labels), len(rows)), generator=draws) * is_noisy[:, None]
    noise = normal.to(rows.device) @ rows  # (B, D)
    return replace(batch, extra={**batch.extra, "noise": noise[:, None]})
