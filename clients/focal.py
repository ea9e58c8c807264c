"""Focal loss: Lin et al., Focal loss for dense object detection, ICCV 2017.

https://arxiv.org/abs/1708.02002
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedlt.client import ClientPlugin, PluginTraits
from fedlt.config.ranges import NotNegative
from fedlt.losses import focal

if TYPE_CHECKING:
    from torch import Tensor

    from fedlt.client import Batch, Client


@dataclass(frozen=True)
class Focal(ClientPlugin):
    """Cross-entropy times (1 - p)^gamma: images already learnt, with p near 1, count less."""

    traits = PluginTraits(per_image=True)

    gamma: NotNegative = 2.0

    def loss(self, logits: Tensor, batch: Batch, client: Client) -> Tensor:
        """Return the mean of -(1 - p)^gamma log p, equation 4."""
        return focal(logits, batch.labels, gamma=self.gamma)
