"""Local training only: the reference point that a federated personal model has to beat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedlt.strategy import HeadFunction, Strategy, StrategyTraits

if TYPE_CHECKING:
    from torch import Tensor

    from fedlt.models import Model


@dataclass(frozen=True)
class LocalOnly(Strategy):
    """Reference, not federated: each client trains its own model alone; nothing is sent.

    All clients start from the same weights. There is no generic model.
    """

    traits = StrategyTraits(reference="each client alone", sends="")

    def build(self, model: Model) -> None:
        """Make the whole model personal."""
        super().build(model)
        for name in model.names("shared"):
            model.set_group(name, "personal")

    def generic(self, model: Model, broadcast: Mapping[str, Tensor]) -> dict[str, HeadFunction]:
        """Return no head: the clients share nothing."""
        return {}
