"""FedLMD: Lu et al., Federated learning with label-masking distillation, ACM MM 2023.

https://arxiv.org/abs/2409.13136
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedlt.config.ranges import NotNegative, Positive
from fedlt.losses import masked_divergence, not_true
from fedlt.strategy import StrategyTraits
from strategies.fedavg import FedAvg

if TYPE_CHECKING:
    from torch import Tensor

    from fedlt.client import Batch, Client
    from fedlt.strategy import Update


@dataclass(frozen=True)
class FedLMD(FedAvg):
    """FedAvg; clients distil from the global model on the classes of which they hold few images.

    These minority classes have no more images at the client than its average class.
    """

    traits = StrategyTraits(reads_labels=True, sends="")

    beta: NotNegative = 1.0  # weight of the distillation; 0: FedAvg
    tau: Positive = 1.0  # temperature

    def local_update(self, client: Client) -> Update:
        """Train with the received model as the teacher."""
        client.keep_start()
        return super().local_update(client)

    def objective(self, client: Client, batch: Batch) -> Tensor:
        """Return CE + beta KL(received || own); the teacher masks majority and true class."""
        logits = client.model(batch.images)  # (B, S, C)
        teacher = client.frozen_logits(client.start(), batch.images)
        counts = client.tensors["class_counts"].float()
        minority = counts <= counts.mean()  # (C,)
        mask = not_true(batch.labels, logits.shape[-1])
        kept = masked_divergence(logits, teacher, mask, mask & minority, tau=self.tau)
        return client.plugin.loss(logits, batch, client) + self.beta * kept
