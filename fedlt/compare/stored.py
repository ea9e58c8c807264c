"""Finished runs on disk: found again by the hash of their configuration, and read for a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedlt.compare.conditions import conditions
from fedlt.errors import FedltError
from fedlt.runs import RunDirectory, run_directories

if TYPE_CHECKING:
    from fedlt.config import Config

__all__ = ["check_unmixed", "collect", "finished_below", "read_finished"]


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


def collect(paths: Sequence[Path]) -> dict[str, list[RunDirectory]]:
    """Return finished runs by the label of their row, by seed.

    Args:
        paths: Each a run directory, a folder with one per seed, or a folder of such folders.

    Raises:
        FedltError: If one holds no run, or the same run is named twice.
    """
    rows: dict[Path, list[RunDirectory]] = {}
    for path in paths:
        for directory in _runs_of(path.absolute()):
            rows.setdefault(directory.path.parent, []).append(directory)
    names = [row.name for row in rows]
    found: dict[str, list[RunDirectory]] = {}
    for row, runs in rows.items():
        if len({run.path for run in runs}) < len(runs):
            raise FedltError(f"{row}: a run is named twice")
        label = row.name if names.count(row.name) == 1 else f"{row.parent.name}/{row.name}"
        if label in found:
            raise FedltError(f"{row}: there is another row called {label!r}")
        found[label] = sorted(runs, key=_by_number)
    return found


def _by_number(run: RunDirectory) -> tuple[int, str]:
    name = run.path.name
    return int(name) if name.isdecimal() else -1, name


def check_unmixed(path: Path) -> None:
    """Raise for a folder with runs by seed and with rows: which of them are meant is not clear.

    Raises:
        FedltError: It names one of each.
    """
    if (path / "config.yaml").is_file():
        return
    seeds = sorted(run.parent for run in path.glob("*/config.yaml"))
    rows = sorted({run.parent.parent for run in path.glob("*/*/config.yaml")})
    if seeds and rows:
        words = f"a run of its own ({seeds[0]}) and rows of a comparison ({rows[0]})"
        raise FedltError(f"{path} holds {words}; name those that you mean")


def _runs_of(path: Path) -> list[RunDirectory]:
    check_unmixed(path)
    below = sorted({run.parent.parent for run in path.glob("*/*/config.yaml")})
    rows = [row for row in below if any(one.name.isdecimal() for one in row.iterdir())]
    if not (path / "config.yaml").is_file() and rows:
        return [run for row in rows for run in run_directories(row)]
    return run_directories(path)
