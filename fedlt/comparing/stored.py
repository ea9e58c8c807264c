"""Finished runs on disk: found by the hash of their configuration, and read for a table."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedlt.comparing.beside import known_labels
from fedlt.comparing.conditions import conditions
from fedlt.comparing.grid import row_folder
from fedlt.errors import FedltError
from fedlt.machine.reading import read_json
from fedlt.runs.directory import RunDirectory
from fedlt.runs.files import is_run

if TYPE_CHECKING:
    from fedlt.config import Config

_DEPTHS = ("", "*", "*/*")  # a run, a row's seeds, a comparison's rows


@dataclass(frozen=True)
class Stored:
    """Stored runs, as rows of a table."""

    rows: Mapping[str, Sequence[RunDirectory]]  # label -> finished runs, by seed
    unfinished: tuple[Path, ...]  # run directories that were left out


def finished_below(folder: Path) -> dict[str, Path]:
    """Return the directories of all finished runs below a folder, by configuration hash.

    Of several runs with one hash the last path in alphabetical order is kept; unreadable runs are
    left out.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("result.json")):
        try:
            content = read_json(path)
            found[str(content["config_hash"])] = path.parent
        except (FedltError, KeyError, TypeError):
            continue
    return found


def read_finished(directory: RunDirectory, config: Config | None = None) -> dict[str, Any]:
    """Return a finished run's result with its ``path``, ``conditions`` and digests of ``data``.

    Args:
        directory: The run directory.
        config: The configuration of the run; None: as stored.
    """
    known = conditions(directory.config() if config is None else config)
    named = {"path": str(directory.path), "conditions": known}
    return directory.result() | named | {"data": dict(directory.recorded().data)}


def collect(paths: Sequence[Path]) -> Stored:
    """Return the finished runs below ``paths``, as rows of a table.

    A row is a folder of runs. Name and order of rows follow the table of their comparison, if there
    is a table; otherwise a row has the folder's name, with the folder above if two names are equal.

    Args:
        paths: Each a run directory, a folder with one per seed, or a folder of such folders.

    Raises:
        FedltError: If a path holds no finished run or an incomplete run, or two rows would have
            one name.
    """
    done: dict[Path, None] = {}
    unfinished: dict[Path, None] = {}
    for path in paths:
        found, rest = _runs_of(path)
        done |= dict.fromkeys(found)
        unfinished |= dict.fromkeys(rest)
    rows: dict[Path, list[Path]] = {}
    for run in done:
        rows.setdefault(run.parent, []).append(run)
    tables = {folder.parent: table_labels(folder.parent) for folder in rows}
    if len(tables) == 1:
        order = list(next(iter(tables.values())))
        places = {row: order.index(row.name) if row.name in order else len(order) for row in rows}
        rows = dict(sorted(rows.items(), key=lambda row: places[row[0]]))
    names = [tables[row.parent].get(row.name, row.name) for row in rows]
    found_rows: dict[str, list[RunDirectory]] = {}
    for (row, runs), name in zip(rows.items(), names, strict=True):
        label = name if names.count(name) == 1 else f"{row.parent.name}/{name}"
        if label in found_rows:
            raise FedltError(f"{row}: there is another row called {label!r}")
        found_rows[label] = [RunDirectory(run) for run in sorted(runs, key=_by_number)]
    return Stored(found_rows, tuple(unfinished))


def _runs_of(path: Path) -> tuple[list[Path], list[Path]]:
    """Return the finished and the unfinished run directories of a path."""
    if not path.is_dir():
        raise FedltError(f"{path} is not a folder; give a run directory or a comparison's folder")
    folder = path.resolve()
    _check_unmixed(path)
    for depth in _DEPTHS:
        folders = [folder] if not depth else sorted(folder.glob(depth), key=_by_number)
        runs = [one for one in folders if is_run(one) and not one.name.startswith(".")]
        for one in runs:
            RunDirectory(one).recorded()  # whole, or named
        done = [one for one in runs if RunDirectory(one).state == "finished"]
        if done:
            return done, [one for one in runs if one not in done]
        if runs:
            raise FedltError(f"{path} holds no finished run; resume one")
    raise FedltError(f"{path} holds no run, nor do folders in it or two folders below")


def _check_unmixed(path: Path) -> None:
    """Raise for a folder that holds both runs by seed and rows, which is ambiguous.

    Raises:
        FedltError: If the folder holds both; the error names a run and a row.
    """
    if is_run(path):
        return
    seeds = sorted(run for run in path.glob("*") if is_run(run))
    rows = sorted({run.parent for run in path.glob("*/*") if is_run(run)} - {*seeds})
    if seeds and rows:
        words = f"a run of its own ({seeds[0]}) and rows of a comparison ({rows[0]})"
        raise FedltError(f"{path} holds {words}; name those that you mean")


def _by_number(path: Path) -> tuple[str, int, str]:
    number = int(path.name) if path.name.isdecimal() else -1
    return str(path.parent), number, path.name


def table_labels(comparison: Path) -> dict[str, str]:
    """Return folder -> label in the order of the comparison's table, then all other known rows."""
    labels = [*_labels_of_table(comparison), *known_labels(comparison)]
    return {row_folder(label): label for label in labels}


def _labels_of_table(comparison: Path) -> list[str]:
    for path in sorted(comparison.glob("*.csv")):
        try:
            with path.open(encoding="utf-8", newline="") as file:
                rows = [row.get("method") for row in csv.DictReader(file)]
        except (OSError, ValueError, csv.Error):  # a file that is not a table of fedlt
            continue
        labels = [label for label in dict.fromkeys(rows) if label]
        if labels:
            return labels
    return []
