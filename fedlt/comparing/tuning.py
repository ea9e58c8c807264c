"""Values that a search chose for the rows of a table, and what stands above the table about them.

``fedlt compare --tune`` searches every row on validation images, runs it with the row's best
values, and writes them with the budget of the search to ``tuned.json`` beside the table.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedlt.comparing.search import described
from fedlt.config.identity import flatten
from fedlt.errors import FedltError, writing
from fedlt.machine.reading import read_json
from fedlt.runs.directory import RunDirectory

if TYPE_CHECKING:
    from fedlt.comparing.comparison import Comparison
    from fedlt.comparing.conditions import Results
    from fedlt.comparing.sweep import Found, Trial

TUNED = "tuned.json"
_RATE = "local.lr"


def best_trial(trials: Sequence[tuple[Trial, float | None]]) -> tuple[Trial, float] | None:
    """Return the first trial with the highest score, and the score; None if all failed."""
    known = [(trial, value) for trial, value in trials if value is not None]
    return max(known, key=lambda pair: pair[1], default=None)


def tuned(comparison: Comparison, found: Found) -> Comparison:
    """Return a comparison whose rows have the best values of a search.

    A control row gets the values of its row, without those of the client plugin, which it controls.

    Args:
        comparison: The comparison that was searched.
        found: The trials of every row but controls.

    Raises:
        FedltError: If every trial of a row has failed.
    """
    chosen: dict[str, tuple[str, ...]] = {}
    for label, trials in found.items():
        best = best_trial(trials)
        if best is None:
            raise FedltError(f"{comparison.path}: every trial of row {label!r} has failed")
        chosen[label] = tuple(f"{key}={json.dumps(value)}" for key, value in best[0].values)
    rows = []
    for row in comparison.rows:
        given = chosen.get(row.label, ())
        if row.is_control:
            own = next((c for label, c in chosen.items() if row.label.startswith(f"{label} (")), ())
            given = tuple(text for text in own if not text.startswith("client."))
        rows.append(replace(row, chosen=given))
    return replace(comparison, rows=tuple(rows))


def write_tuned(folder: Path, comparison: Comparison, found: Found) -> Path:
    """Write the chosen values and the budget of every row to ``tuned.json``; return the file.

    Args:
        folder: The comparison's folder.
        comparison: The comparison that was searched.
        found: The trials of every row but controls.

    Raises:
        FedltError: If the file cannot be written.
    """
    searched = {row.label: [*row.search] for row in comparison.rows}
    path = folder / TUNED
    content = dict(read_json(path)) if path.is_file() else {}  # rows of another command stay
    for label, trials in found.items():
        best = best_trial(trials)
        if best is not None:
            content[label] = {
                "values": dict(best[0].values),
                "score": best[1],
                "searched": searched[label],
                "trials": len(trials),
                "failed": sum(value is None for _, value in trials),
                "seed": best[0].planned.config.seed,
                "split": "tune",
            }
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return path


def lines_above(results: Results) -> list[str]:
    """Return what stands above a table: chosen values with their budget, or a shared rate.

    Rows that share one learning rate which nobody searched favour the method it happens to suit.

    Args:
        results: The finished rows of the table; runs without a folder say nothing.
    """
    configs = {label: _config(runs[0]) for label, runs in results.items() if runs}
    known = {label: found for label, found in configs.items() if found is not None}
    lines, searched = [], _searched(results)
    told = _tuned_of(results)
    for label, (flat, _) in known.items():
        one = told.get(label)
        if one is not None and all(flat.get(key) == v for key, v in one["values"].items()):
            failed = f", {one['failed']} failed" if one["failed"] else ""
            lines.append(
                f"tuned: {label}: {described(tuple(one['values'].items()))}, the best of "
                f"{one['trials']} trials{failed} of {', '.join(one['searched'])} on data.split: "
                f"{one['split']}, seed {one['seed']}"
            )
            searched |= set(one["searched"])
    rates = {flat[_RATE] for flat, is_point in known.values() if not is_point}
    methods = sum(not is_point for _, is_point in known.values())
    if methods > 1 and len(rates) == 1 and _RATE not in searched:
        lines.append(
            f"not tuned: all methods have {_RATE} {rates.pop():g}, which nobody searched for this "
            "table; another rate may change the order (fedlt compare --tune)"
        )
    return lines


def _config(run: Mapping[str, Any]) -> tuple[dict[str, Any], bool] | None:
    """Return a run's settings by dotted key, and whether it is a reference point."""
    if "path" not in run:
        return None
    tree = RunDirectory(Path(run["path"])).config().model_dump(mode="json")
    return flatten(tree), bool(run.get("reference"))


def _folders(results: Results) -> list[Path]:
    """Return the folders that may hold a comparison's files: above the rows of the runs."""
    places = [Path(run["path"]) for runs in results.values() for run in runs[:1] if "path" in run]
    return list(dict.fromkeys(one for place in places for one in list(place.parents)[1:3]))


def _tuned_of(results: Results) -> dict[str, Any]:
    for folder in _folders(results):
        if (folder / TUNED).is_file():
            content = read_json(folder / TUNED)
            return content if isinstance(content, dict) else {}
    return {}


def _searched(results: Results) -> set[str]:
    """Return the keys that a ``fedlt sweep`` of the comparison has searched."""
    found: set[str] = set()
    for folder in _folders(results):
        table = folder / "sweep" / "sweep.csv"
        if table.is_file() and _RATE in table.read_text(encoding="utf-8"):
            found.add(_RATE)
    return found
