"""Choose the server half of a run: its own class for stock strategies of Flower's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedlt.config.raised import users_code
from fedlt.errors import FedltError
from fedlt.flower.adapter import ServerHalf
from fedlt.flower.stock import StockFlowerStrategy, StockStrategy

if TYPE_CHECKING:
    from fedlt.federation.federation import Federation


def make_server_half(federation: Federation) -> ServerHalf:
    """Build the initial model and the server half around it.

    Raises:
        FedltError: If the model cannot be built, or the strategy's ``build`` or ``init`` fails.
    """
    strategy = federation.strategy
    with users_code(f"strategy {type(strategy).__name__}: building the model or init fails"):
        model = federation.build_model()
        if strategy.pools and (kept := model.names("personal")):
            name = federation.config.strategy.name
            raise FedltError(
                f"strategy {name!r}: there is no client to keep what is personal: {kept[0]}"
            )
        if isinstance(strategy, StockStrategy):
            return StockFlowerStrategy(strategy, model, federation)
        return ServerHalf(federation, model, strategy.init(model))
