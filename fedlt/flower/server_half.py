"""Choose the server half of a run: its own class for stock strategies of Flower's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedlt.config.raised import users_code
from fedlt.errors import FedltError
from fedlt.flower.adapter import ServerHalf
from fedlt.flower.stock import StockFlowerStrategy, StockStrategy

if TYPE_CHECKING:
    from fedlt.federation import ServerView
    from fedlt.federation.faults import Faults


def make_server_half(view: ServerView, faults: Faults | None = None) -> ServerHalf:
    """Build the initial model and the server half around it.

    Args:
        view: What the server may know.
        faults: What the driver of a simulation lets go wrong; None: nothing.

    Raises:
        FedltError: If the model cannot be built, or the strategy's ``build`` or ``init`` fails.
    """
    strategy = view.strategy
    with users_code(f"strategy {type(strategy).__name__}: building the model or init fails"):
        model = view.build_model()
        if strategy.traits.pools and (kept := model.names("personal")):
            name = view.config.strategy.name
            raise FedltError(
                f"strategy {name!r}: there is no client to keep what is personal: {kept[0]}"
            )
        if isinstance(strategy, StockStrategy):
            return StockFlowerStrategy(strategy, model, view, faults)
        return ServerHalf(view, model, strategy.init(model), faults)
