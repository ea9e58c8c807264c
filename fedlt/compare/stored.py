"""Finished runs on disk: found again by the hash of their configuration, and read for a table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedlt.compare.conditions import conditions
from fedlt.runs import RunDirectory

if TYPE_CHECKING:
    from fedlt.config import Config

__all__ = ["finished_below", "read_finished"]


def finished_below(folder: Path) -> dict[str, Path]:
    """Return the directories of all finished runs below a folder by configuration hash.

    The last in alphabetical order stands for several; what cannot be read is left out.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("result.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            found[str(content["config_hash"])] = path.parent
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found


def read_finished(directory: RunDirectory, config: Config | None = None) -> dict[str, Any]:
    """Return a finished run's result with its ``path`` and its ``conditions``.

    Args:
        directory: The run.
        config: Its configuration; None: as stored.
    """
    known = conditions(directory.config() if config is None else config)
    return directory.result() | {"path": str(directory.path), "conditions": known}
