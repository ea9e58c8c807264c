"""Flower's mods that an experiment names: code around every training task of a client."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedlt.config.loading import is_spec, load_users_object
from fedlt.errors import FedltError

if TYPE_CHECKING:
    from fedlt.config import Config
    from fedlt.flower.client_app import Mod


def load_mods(config: Config) -> list[Mod]:
    """Return the mods of ``flower.mods``, the outermost first.

    Raises:
        FedltError: If a mod is not named as ``file.py:name`` or ``module:name``, or is no function.
    """
    mods = []
    for place, name in enumerate(config.flower.mods):
        where = f"flower.mods.{place}"
        if not is_spec(name):
            raise FedltError(
                f"{where}: {name!r} is not of the form module:name, such as "
                "flwr.clientapp.mod:message_size_mod"
            )
        mod = load_users_object(name, where)
        if not callable(mod) or isinstance(mod, type):
            raise FedltError(f"{where}: {name!r} is no function (message, context, call_next)")
        mods.append(mod)
    return mods
