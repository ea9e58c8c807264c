"""FedPer: Arivazhagan et al., Federated learning with personalization layers, 2019.

https://arxiv.org/abs/1912.00818, algorithms 1 and 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedlt.models import LinearHead
from fedlt.strategy import Strategy, StrategyTraits

if TYPE_CHECKING:
    from fedlt.models import Model


@dataclass(frozen=True)
class FedPer(Strategy):
    """Averaged backbone and personal head, trained together.

    The generic model is the backbone under the mean of the heads, and is marked as an average.
    """

    traits = StrategyTraits(sends="", trains_once=True)

    def build(self, model: Model) -> None:
        """Add a personal head."""
        model.add_head("head", LinearHead(model.num_features, model.num_classes), group="personal")
