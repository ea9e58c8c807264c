"""Choose the server half of a run: the adapter for our strategies, the wrapper for stock ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedlt.flower.adapter import FlowerStrategy, ServerHalf
from fedlt.flower.stock import StockFlowerStrategy, StockStrategy

if TYPE_CHECKING:
    from fedlt.federation import Federation

__all__ = ["make_server_half"]


def make_server_half(federation: Federation) -> ServerHalf:
    """Build the initial model and the server half around it."""
    model = federation.build_model()
    strategy = federation.strategy
    if isinstance(strategy, StockStrategy):
        return StockFlowerStrategy(strategy, model, federation)
    return FlowerStrategy(strategy, model, federation)
