"""Leaderboard: finished comparisons of one list of methods on several data sets, as one table.

    folders of comparisons -> one table of results per data set -> verdicts per data set
                                                                -> mean ranks over data sets x seeds

A folder holds ``<row>/<seed>``, whole runs or kept ones (`fedlt.runs.kept`). Folders with the same
partitions are one data set: so own rows come beside published ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedlt.comparing.beside import RATES, TUNED, known_labels, read_beside, rounds_each
from fedlt.comparing.conditions import check_comparable
from fedlt.comparing.grid import row_folder
from fedlt.comparing.stored import read_finished, table_labels
from fedlt.comparing.verdicts import pick_reference
from fedlt.errors import FedltError, writing
from fedlt.runs.directory import RunDirectory
from fedlt.runs.files import is_run, write_json
from fedlt.runs.fingerprint import RESULTS_VERSION
from fedlt.runs.kept import VERSION, is_kept, keep, read_kept


@dataclass
class Entry:
    """Entry of a leaderboard: all rows on one data set."""

    name: str  # heading in tables
    folders: list[Path]
    results: dict[str, list[dict[str, Any]]]  # label -> results, one per seed
    tuned: dict[str, Any] = field(default_factory=dict)  # label -> its entry in tuned.json

    def partitions(self) -> dict[int, str]:
        """Return the hash of the partition by seed."""
        runs = (run for own in self.results.values() for run in own)
        return {int(run["seed"]): str(run["partition_hash"]) for run in runs}


def read_leaderboard(given: Sequence[str]) -> list[Entry]:
    """Return the data sets of a leaderboard, in the order of their first folders.

    Args:
        given: Each a comparison's folder, or ``HEADING=folder``.

    Raises:
        FedltError: If a folder has no finished run or an unfinished run, a row stands in two
            folders of one data set, or rows of a data set cannot be compared.
    """
    entries: list[Entry] = []
    for text in given:
        entry = _read_folder(text)
        other = next((one for one in entries if _same(one, entry)), None)
        if other is None:
            entries.append(entry)
            continue
        for label in entry.results:
            if label in other.results:
                places = " and ".join(map(str, (*other.folders, *entry.folders)))
                raise FedltError(f"row {label!r} is twice on one data set, in {places}")
        other.folders += entry.folders
        other.results |= entry.results
        other.tuned |= entry.tuned
    for entry in entries:
        check_comparable(entry.results)
        _check_rounds(entry)
        if sum(one.name == entry.name for one in entries) > 1:
            raise FedltError(f"two data sets are called {entry.name!r}; give HEADING=FOLDER")
    return entries


def pick_against(entries: Sequence[Entry], against: str) -> str:
    """Return the reference row: ``against``, else the first federated row of the first data set.

    Raises:
        FedltError: If no data set has the row.
    """
    everywhere = {label: runs for entry in entries for label, runs in entry.results.items()}
    points = [label for label, runs in everywhere.items() if runs[0].get("reference")]
    return pick_reference(list(everywhere), against, points=points)


def search_lines(entry: Entry) -> list[str]:
    """Return lines about the budgets of the searches; the budget of most rows comes last."""
    methods = [label for label, runs in entry.results.items() if not runs[0].get("reference")]
    budgets: dict[str, list[str]] = {}
    for label in methods:
        budgets.setdefault(_budget(entry.tuned.get(label)), []).append(label)
    lines = []
    for budget, own in sorted(budgets.items(), key=lambda pair: len(pair[1])):
        whose = ", ".join(own)
        if len(own) > len(methods) / 2:
            whose = "every row" if len(budgets) == 1 else "every other row"
        lines.append(f"{entry.name}: {whose}: {budget}")
    return lines


def version_lines(entry: Entry) -> list[str]:
    """Return a line if another results version of fedlt made the runs; otherwise []."""
    (found,) = {run["conditions"][VERSION] for own in entry.results.values() for run in own}
    if found == RESULTS_VERSION:
        return []
    made = "an unknown results version" if found is None else f"results version {found}"
    return [
        f"{entry.name}: made by {made} of fedlt, this is {RESULTS_VERSION}: numbers have changed"
    ]


def keep_runs(entry: Entry, folder: Path) -> list[Path]:
    """Copy results and rounds of an entry to ``folder/<comparison>``, and what its searches chose.

    Returns:
        The folders of the comparisons.

    Raises:
        FedltError: If another run's files are there, or a file cannot be written.
    """
    made = []
    for source in entry.folders:
        target = folder / source.resolve().name
        if target.resolve() == source.resolve():
            raise FedltError(f"--keep: {target} is the folder of the runs; give another")
        for row in _rows_below(source):
            for run in _runs_below(row):
                keep(run, target / row.name / run.name)
        for name in (RATES, TUNED):
            if (source / name).is_file():
                with writing(target):
                    content = read_beside(target, name) | read_beside(source, name)
                    write_json(target / name, content)
        made.append(target)
    return made


def _budget(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "not searched"
    rounds = f", {rounds_each(found['rounds'])}" if "rounds" in found else ""
    return (
        f"the best of {found['trials']} trials of {', '.join(found['searched'])} on data.split: "
        f"{found['split']}, seed {found['seed']}{rounds}"
    )


def _read_folder(text: str) -> Entry:
    heading, equals, place = text.partition("=")
    if not equals or Path(text).exists():
        heading, place = "", text
    folder = Path(place)
    if not folder.is_dir():
        raise FedltError(f"{folder} is not a folder; give a comparison's folder")
    labels = {row_folder(one): one for one in known_labels(folder)} | table_labels(folder)
    rows = _rows_below(folder)
    if not rows:
        raise FedltError(f"{folder} holds no runs of a comparison, as <row>/<seed>")
    order = list(labels)
    rows.sort(key=lambda row: order.index(row.name) if row.name in order else len(order))
    found = {labels.get(row.name, row.name): list(map(_read, _runs_below(row))) for row in rows}
    return Entry(heading or folder.resolve().name, [folder], found, read_beside(folder, TUNED))


def _rows_below(folder: Path) -> list[Path]:
    """Return the folders that hold runs, by name."""
    rows = (path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return sorted(row for row in rows if _runs_below(row))


def _runs_below(row: Path) -> list[Path]:
    """Return the run directories of a row, by seed."""
    runs = [one for one in row.iterdir() if one.name.isdecimal() and is_run(one)]
    return sorted(runs, key=lambda one: int(one.name))


def _read(run: Path) -> dict[str, Any]:
    if is_kept(run):
        return read_kept(run)
    directory = RunDirectory(run)
    if directory.state != "finished":
        raise FedltError(f"{run} is not finished; the same fedlt compare goes on")
    found = read_finished(directory)
    return found | {"conditions": {**found["conditions"], VERSION: RESULTS_VERSION}}


def _same(one: Entry, other: Entry) -> bool:
    """Return True if two folders have a partition in common, with the same seed."""
    return bool(one.partitions().items() & other.partitions().items())


def _check_rounds(entry: Entry) -> None:
    """Raise if methods of a data set ran for different numbers of rounds."""
    first: tuple[str, int] | None = None
    for label, runs in entry.results.items():
        for run in runs:
            if run["stopped"] is None and not run["reference"]:
                first = first or (label, run["rounds"])
                if run["rounds"] != first[1]:
                    told = f"{run['rounds']} and {first[1]} rounds"
                    raise FedltError(f"{label!r} and {first[0]!r} have {told}: not comparable")
