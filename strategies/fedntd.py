"""FedNTD: Lee et al., Preservation of the global knowledge by not-true distillation.

NeurIPS 2022, https://arxiv.org/abs/2106.03097
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
class FedNTD(FedAvg):
    """FedAvg; clients distil from the global model on all classes but the image's true one."""

    traits = StrategyTraits(reads_labels=True, sends="", trains_once=True)

    beta: NotNegative = 1.0  # weight of the distillation; 0: FedAvg
    tau: Positive = 1.0  # temperature

    def local_update(self, client: Client) -> Update:
        """Train with the received model as the teacher."""
        client.keep_start()
        return super().local_update(client)

    def objective(self, client: Client, batch: Batch) -> Tensor:
        """Return CE + beta KL(received || own) over all classes but the true one (eq. 4, 5)."""
        logits = client.model(batch.images)  # (B, S, C)
        teacher = client.frozen_logits(client.start(), batch.images)
        mask = not_true(batch.labels, logits.shape[-1])
        kept = masked_divergence(logits, teacher, mask, mask, tau=self.tau)
        return client.plugin.loss(logits, batch, client) + self.beta * kept
