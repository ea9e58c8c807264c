"""The part of a file that all its runs share: of a comparison and of a recipe the common part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedlt.config import Config
from fedlt.config.load import load_content
from fedlt.config.yaml12 import read_mapping

_DATA = ("data", "partition")  # what the commands show that read the common part
_NAMED = 5  # rows or settings that a line names


def read_common(path: Path, overrides: Sequence[str] = ()) -> tuple[Config, list[str]]:
    """Return the configuration of an experiment, or the common part of a file of many runs.

    The sections ``compare`` and ``reproduce`` are left out. The lines name the rows and settings
    that change data or partition, which the common part does not show.

    Args:
        path: The file.
        overrides: As in :func:`fedlt.config.load_config`.

    Raises:
        FedltError: If the file cannot be read, or the common part is not valid.
    """
    tree = read_mapping(path)
    rows = _within(tree.pop("compare", None), "rows")
    settings = _within(tree.pop("reproduce", None), "settings")
    notes = [*_changed("row", rows), *_changed("setting", settings)]
    return load_content(tree, path, overrides), notes


def _within(section: object, key: str) -> Mapping[Any, Any]:
    found = section.get(key) if isinstance(section, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _changed(what: str, parts: Mapping[Any, Any]) -> list[str]:
    """Return a line that names the rows or settings with data or partition of their own."""
    own = [str(label) for label, changes in parts.items() if _changes_data(changes)]
    if not own:
        return []
    more = f" and {len(own) - _NAMED} more" if len(own) > _NAMED else ""
    words = f"{what} {own[0]} changes" if len(own) == 1 else f"{what}s {_listed(own)}{more} change"
    return [f"{words} data or partition; this is the common part of all {what}s"]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED])


def _changes_data(changes: object) -> bool:
    keys = changes if isinstance(changes, Mapping) else ()
    return any(str(key).partition(".")[0] in _DATA for key in keys)
