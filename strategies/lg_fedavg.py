"""LG-FedAvg: Liang et al., Think locally, act globally, 2020.

https://arxiv.org/abs/2001.01523, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedlt.strategy import HeadFunction, Strategy, StrategyTraits

if TYPE_CHECKING:
    from torch import Tensor

    from fedlt.models import Model


@dataclass(frozen=True)
class LgFedAvg(Strategy):
    """Personal backbone and averaged head, trained together: the reverse of FedPer.

    There is no generic model: the clients share no backbone.
    """

    traits = StrategyTraits(sends="")

    def build(self, model: Model) -> None:
        """Make the backbone personal."""
        super().build(model)
        model.set_group("backbone", "personal")

    def generic(self, model: Model, broadcast: Mapping[str, Tensor]) -> dict[str, HeadFunction]:
        """Return no head."""
        return {}
