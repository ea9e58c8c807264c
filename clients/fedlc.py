"""FedLC: Zhang et al., Federated learning with label distribution skew via logits calibration.

ICML 2022, https://arxiv.org/abs/2209.00189
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedlt.client import ClientPlugin, PluginTraits
from fedlt.config.ranges import NotNegative
from fedlt.losses import calibration, fedlc

if TYPE_CHECKING:
    from torch import Tensor

    from fedlt.client import Batch, Client


@dataclass(frozen=True)
class FedLC(ClientPlugin):
    """Cross-entropy on logits minus tau n^(-1/4), where n are the client's class counts.

    Absent classes are masked. Predictions use the plain logits.
    """

    traits = PluginTraits(per_image=True)

    tau: NotNegative = 1.0

    def setup(self, client: Client) -> None:
        """Compute the offsets of the logits."""
        offsets = calibration(client.tensors["class_counts"], tau=self.tau)
        client.tensors["calibration"] = offsets

    def loss(self, logits: Tensor, batch: Batch, client: Client) -> Tensor:
        """Return the mean cross-entropy of the calibrated logits."""
        return fedlc(logits, batch.labels, client.tensors["calibration"])
