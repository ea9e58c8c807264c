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
    """FedAvg whose clients learn from the received model about the classes they hold few images of.

    A class is in the majority at a client that holds more images of it than of the average class.
    """

    traits = StrategyTraits(reads_labels=True)

    beta: NotNegative = 1.0  # weight of the distillation; 0: FedAvg
    tau: Positive = 1.0  # temperature

    def local_update(self, client: Client) -> Update:
        """Train with the model as received for a teacher."""
        client.keep_start()
        return super().local_update(client)

    def objective(self, client: Client, batch: Batch) -> Tensor:
        """Return CE + beta KL(received || own), majority and true class masked in the teacher."""
        logits = client.model(batch.images)  # (B, S, C)
        teacher = client.frozen_logits(client.start(), batch.images)
        counts = client.tensors["class_counts"].float()
        minority = counts <= counts.mean()  # (C,)
        mask = not_true(batch.labels, logits.shape[-1])
        kept = masked_divergence(logits, teacher, mask, mask & minority, tau=self.tau)
        return client.plugin.loss(logits, batch, client) + self.beta * kept
