"""Values that a search chose for the rows of a table, and what stands above the table about them.

``fedlt compare --tune`` searches every row on validation images, runs it with the row's best
values, and writes them with the budget of the search to ``tuned.json`` beside the table.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedlt.comparing.beside import RATES, TUNED, read_beside, rounds_each
from fedlt.comparing.search import described
from fedlt.config.identity import flatten
from fedlt.errors import FedltError, writing
from fedlt.runs.directory import RunDirectory

if TYPE_CHECKING:
    from fedlt.comparing.comparison import Comparison
    from fedlt.comparing.conditions import Results
    from fedlt.comparing.sweep import Found, Trial

_RATE = "local.lr"
_NAMED = 5  # rows that a line names


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
    content = read_beside(folder, TUNED)  # rows of another command stay
    for label, trials in found.items():
        best = best_trial(trials)
        if best is not None:
            content[label] = {
                "values": dict(best[0].values),
                "score": best[1],
                "tried": [[dict(trial.values), value] for trial, value in trials],
                "searched": searched[label],
                "trials": len(trials),
                "failed": sum(value is None for _, value in trials),
                "seed": best[0].planned.config.seed,
                "rounds": best[0].planned.config.rounds,
                "split": "tune",
            }
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return path


def write_rates(comparison: Comparison) -> None:
    """Write to ``rates.json`` which rows have a learning rate of their own in the file.

    Reports and ``rescore`` read it, which have the runs and not the comparison's file. An override
    of the rate is shared by all rows.

    Raises:
        FedltError: If the file cannot be written.
    """
    path = comparison.folder() / RATES
    is_given = any(text.partition("=")[0].strip() == _RATE for text in comparison.overrides)
    known = {
        row.label: "own" if row.own_rate and not is_given else "shared" for row in comparison.rows
    }
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            json.dumps(read_beside(path.parent, RATES) | known, indent=2) + "\n", encoding="utf-8"
        )


def lines_above(results: Results) -> list[str]:
    """Return what stands above a table: chosen values with their budget, and a shared rate.

    Rows that share one learning rate which nobody searched favour the method it happens to suit.
    A rate of a row's own counts as searched. Where it is not known which rows have one, as of runs
    that no comparison made, there is a line only if all rows have the same rate.

    Args:
        results: The finished rows of the table; runs without a folder say nothing.
    """
    configs = {label: _config(runs[0]) for label, runs in results.items() if runs}
    known = {label: found for label, found in configs.items() if found is not None}
    lines: list[str] = []
    searched: set[str] = set()  # rows
    told = _beside(results, TUNED)
    for label, (flat, _) in known.items():
        one = told.get(label)
        if one is not None and all(flat.get(key) == v for key, v in one["values"].items()):
            failed = f", {one['failed']} failed" if one["failed"] else ""
            rounds = one.get("rounds", flat["rounds"])  # files of before this key lack it
            short = f", {rounds_each(rounds)}" if rounds != flat["rounds"] else ""
            lines.append(
                f"tuned: {label}: {described(tuple(one['values'].items()))}, the best of "
                f"{one['trials']} trials{failed} of {', '.join(one['searched'])} on data.split: "
                f"{one['split']}, seed {one['seed']}{short}"
            )
            searched |= {label} if _RATE in one["searched"] else set()
    rates = {label: flat[_RATE] for label, (flat, is_point) in known.items() if not is_point}
    return lines if _is_swept(results) else [*lines, *_not_tuned(results, rates, searched)]


def _not_tuned(results: Results, rates: Mapping[str, float], searched: Set[str]) -> list[str]:
    """Return a line that names the rows with a shared rate that nobody searched.

    Args:
        results: The finished rows.
        rates: The learning rate of every row that is a method.
        searched: Rows whose rate ``--tune`` has searched.
    """
    known = _beside(results, RATES)
    if not known and len(set(rates.values())) > 1:
        return []
    own = {label for label in rates if known.get(label) == "own"} | searched
    left = [r for r in rates if r not in own and r.partition(" (control")[0] not in searched]
    if len(rates) < 2 or not left:
        return []
    found = " and ".join(dict.fromkeys(f"{rates[label]:g}" for label in left))
    more = f" and {len(left) - _NAMED} more" if len(left) > _NAMED else ""
    who = f"{', '.join(left[:_NAMED])}{more}" if len(left) < len(rates) else "all methods"
    verb = "has" if len(left) == 1 else "have"
    return [
        f"not tuned: {who} {verb} {_RATE} {found}, which nobody searched for this table; another "
        "rate may change the order (fedlt compare --tune)"
    ]


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


def _beside(results: Results, name: str) -> dict[str, Any]:
    """Return the content of a file in the comparison's folder; {} if there is none."""
    found = (read_beside(folder, name) for folder in _folders(results))
    return next((content for content in found if content), {})


def _is_swept(results: Results) -> bool:
    """Return True if a ``fedlt sweep`` of the comparison has searched the learning rate."""
    tables = [folder / "sweep" / "sweep.csv" for folder in _folders(results)]
    return any(table.is_file() and _RATE in table.read_text(encoding="utf-8") for table in tables)
