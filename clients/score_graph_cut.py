"""SCoRe with graph cut: Majee et al., ICML 2024, https://arxiv.org/abs/2310.00165."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedlt.client import ClientPlugin
from fedlt.config.ranges import NotNegative
from fedlt.losses import cross_entropy, graph_cut

if TYPE_CHECKING:
    from torch import Tensor

    from fedlt.client import Batch, Client


@dataclass(frozen=True)
class ScoreGraphCut(ClientPlugin):
    """Cross-entropy plus a term that pulls images of a class together and classes apart."""

    weight: NotNegative = 1.0  # weight of the term
    within: NotNegative = 1.0  # lambda: weight of the similarities inside a class

    def loss(self, logits: Tensor, batch: Batch, client: Client) -> Tensor:
        """Return CE + weight * total information (graph cut) of logits as embeddings."""
        cut = graph_cut(logits, batch.labels, logits.shape[-1], within=self.within)
        return cross_entropy(logits, batch.labels) + self.weight * cut
