"""Balanced softmax: Ren et al., Balanced meta-softmax for long-tailed recognition, NeurIPS 2020.

https://arxiv.org/abs/2007.10740
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedlt.client import ClientPlugin, PluginTraits
from fedlt.losses import balanced_softmax

if TYPE_CHECKING:
    from torch import Tensor

    from fedlt.client import Batch, Client


@dataclass(frozen=True)
class BalancedSoftmax(ClientPlugin):
    """Cross-entropy on logits plus the log class prior, which the file's ``prior`` chooses.

    Predictions use the plain logits. With equal class counts the loss is cross-entropy.
    """

    traits = PluginTraits(per_image=True, masks_absent=True)

    def loss(self, logits: Tensor, batch: Batch, client: Client) -> Tensor:
        """Return the mean of CE(logits + log prior), eq. 4 of the paper."""
        return balanced_softmax(logits, batch.labels, client.tensors["log_prior"])
