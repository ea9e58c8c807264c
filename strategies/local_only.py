"""Every client alone: the reference point that a federated personal model has to beat."""

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
    """A client trains its own model from the common start and never hears of anybody.

    Nothing is sent. There is no generic model.
    """

    traits = StrategyTraits(reference="each client alone")

    def build(self, model: Model) -> None:
        """Make everything personal that would be shared."""
        super().build(model)
        for name in model.names("shared"):
            model.set_group(name, "personal")

    def generic(self, model: Model, broadcast: Mapping[str, Tensor]) -> dict[str, HeadFunction]:
        """Return no head: nothing is common to the clients."""
        return {}
