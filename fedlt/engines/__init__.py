"""Engines: where client tasks run. This table is the only registry; classes load when asked for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from fedlt.config.loading import is_spec, load_users_object
from fedlt.errors import FedltError, nearest

if TYPE_CHECKING:
    from fedlt.engines.engine import Engine

__all__ = ["ENGINES", "check_engine", "engine_class"]

ENGINES = {
    "auto": "fedlt.engines.engine:Engine",  # weigh_engines() picks another engine of the table
    "serial": "fedlt.engines.serial:SerialEngine",
    "ray": "fedlt.engines.ray:RayEngine",
    "stacked": "fedlt.engines.stacked:StackedEngine",
}


def check_engine(name: str) -> None:
    """Raise FedltError unless ``name`` is a key of :data:`ENGINES` or ``file.py:Class``."""
    if not is_spec(name) and name not in ENGINES:
        raise FedltError(f"engine.name: no engine {name!r}{nearest(name, ENGINES)}")


def engine_class(name: str) -> type[Engine]:
    """Return the engine called ``name``: a key of :data:`ENGINES`, or ``file.py:Class``.

    Raises:
        FedltError: If no engine has that name, or the class is not an :class:`Engine`.
    """
    from fedlt.engines.engine import Engine

    if is_spec(name):
        found = load_users_object(name, "engine.name")
        if not (isinstance(found, type) and issubclass(found, Engine)):
            raise FedltError(
                f"engine.name: {name!r} is not a subclass of fedlt.engines.engine.Engine"
            )
        return found
    check_engine(name)
    module, _, attribute = ENGINES[name].partition(":")
    chosen: type[Engine] = getattr(importlib.import_module(module), attribute)
    return chosen
