"""Frozen parts of a backbone: neither trained nor averaged, and evaluating in training, too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from fedlt.errors import FedltError, nearest
from fedlt.models.index import lies_under

if TYPE_CHECKING:
    from fedlt.models.model import Model


def freeze(model: Model, prefixes: Sequence[str] | Literal["all"]) -> None:
    """Make parts of a backbone ``fixed``: parameters, and the statistics of BatchNorm.

    Args:
        model: The finished model, changed in place.
        prefixes: Dotted prefixes of names below ``backbone.``; ``all``: the whole backbone.

    Raises:
        FedltError: If nothing lies under a prefix.
    """
    start = "backbone."
    names = [name.removeprefix(start) for name in model.names() if name.startswith(start)]
    if prefixes == "all":
        if not names:
            raise FedltError("model.freeze: the backbone has no weights that could be frozen")
        model.set_group("backbone", "fixed")
        return
    for prefix in prefixes:
        if not prefix or not any(lies_under(name, prefix) for name in names):
            raise FedltError(
                f"model.freeze: nothing in the backbone lies under {prefix!r}"
                f"{nearest(prefix, ['all', *_parts(names)])}"
            )
        model.set_group(f"{start}{prefix}", "fixed")


def frozen_names(model: Model, prefixes: Sequence[str] | Literal["all"]) -> list[str]:
    """Return the names of the backbone's tensors that :func:`freeze` makes ``fixed``."""
    start = "backbone."
    under = [""] if prefixes == "all" else prefixes
    inside = [name for name in model.names() if name.startswith(start)]
    return [n for n in inside if any(lies_under(n.removeprefix(start), one) for one in under)]


def training_note(model: Model) -> str:
    """Return a line: how many parameters of a model with frozen parts train."""
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    trained = sum(sizes[name] for name in sizes if model.group_of(name) != "fixed")
    return f"model.freeze: {trained:,} of {sum(sizes.values()):,} parameters train"


def _parts(names: Sequence[str]) -> list[str]:
    """Return the prefixes of names with one dot at most, without the tensors themselves."""
    found: dict[str, None] = {}
    for name in names:
        parts = name.split(".")[:-1]
        found |= {".".join(parts[:end]): None for end in (1, 2) if len(parts) >= end}
    return list(found)
