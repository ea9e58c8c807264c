"""Logit adjustment: Menon et al., Long-tail learning via logit adjustment, ICLR 2021.

https://arxiv.org/abs/2007.07314
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedlt.client import ClientPlugin, PluginTraits
from fedlt.config.ranges import NotNegative
from fedlt.losses import logit_adjusted

if TYPE_CHECKING:
    from torch import Tensor

    from fedlt.client import Batch, Client


@dataclass(frozen=True)
class LogitAdjustment(ClientPlugin):
    """Cross-entropy on logits plus tau times the log class prior, which ``prior`` chooses.

    Predictions use the plain logits.
    """

    traits = PluginTraits(per_image=True, masks_absent=True)

    tau: NotNegative = 1.0

    def loss(self, logits: Tensor, batch: Batch, client: Client) -> Tensor:
        """Return the mean of CE(logits + tau log prior), equation 10."""
        return logit_adjusted(logits, batch.labels, client.tensors["log_prior"], tau=self.tau)
