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
    from fedlt.models import Model


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
        _check_buffers(view, model)
        if isinstance(strategy, StockStrategy):
            return StockFlowerStrategy(strategy, model, view, faults)
        return ServerHalf(view, model, strategy.init(model), faults)


def _check_buffers(view: ServerView, model: Model) -> None:
    """Refuse a private run whose clients would send BatchNorm's statistics, which are not clipped.

    With ``sample`` BatchNorm is refused altogether: it mixes the images of a batch.
    """
    rules = view.config.privacy
    if rules is None:
        return
    held = [*model.buffer_names("shared")]
    if rules.mechanism == "sample":
        held += model.buffer_names("personal")
    if held:
        reason = (
            "mixes the images of a batch"
            if rules.mechanism == "sample"
            else "has statistics of the images, which would leave a client as they are"
        )
        raise FedltError(f"privacy: BatchNorm ({held[0]}) {reason}; take model.norm=group")
