"""SCoRe with facility location: Majee et al., ICML 2024, https://arxiv.org/abs/2310.00165."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedlt.client import ClientPlugin
from fedlt.config.ranges import NotNegative
from fedlt.losses import cross_entropy, facility_location

if TYPE_CHECKING:
    from torch import Tensor

    from fedlt.client import Batch, Client


@dataclass(frozen=True)
class ScoreFacilityLocation(ClientPlugin):
    """Cross-entropy plus a term that pushes images from the nearest image of each other class."""

    weight: NotNegative = 1.0  # weight of the term

    def loss(self, logits: Tensor, batch: Batch, client: Client) -> Tensor:
        """Return CE + weight * total information (facility location) of logits as embeddings."""
        apart = facility_location(logits, batch.labels, logits.shape[-1])
        return cross_entropy(logits, batch.labels) + self.weight * apart
