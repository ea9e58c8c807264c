"""A search of a few values per row, scored on the validation images of ``data.split: tune``.

Every row is tried with every combination of its ``search`` lists, on the first seed. The score is
the mean of the primary accuracies that the method has: generic, personal, over the last k rounds.
"""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedlt.compare.comparison import Comparison, Row
from fedlt.compare.schedule import Cell, run_cells
from fedlt.errors import FedltError

__all__ = ["Trial", "make_trials", "run_trials", "score", "sweep_markdown"]


@dataclass(frozen=True)
class Trial:
    """One setting of one row."""

    row: Row
    values: tuple[tuple[str, Any], ...]  # dotted key -> value
    cell: Cell

    def __str__(self) -> str:
        """Return the values, ``lr=0.1 mu=0.01``; the last word of each key."""
        return " ".join(f"{key.rpartition('.')[2]}={value}" for key, value in self.values)


def make_trials(comparison: Comparison) -> list[Trial]:
    """Return every combination of every row's lists, on ``data.split: tune``; none of controls.

    Raises:
        FedltError: If a row has nothing to search, or a combination is not valid.
    """
    trials = []
    for row in comparison.rows:
        if row.is_control:
            continue
        if not row.search:
            raise FedltError(f"{comparison.path}: row {row.label!r} has no search: {{key: values}}")
        for number, values in enumerate(itertools.product(*row.search.values())):
            pairs = tuple(zip(row.search, values, strict=True))
            given = [f"{key}={json.dumps(value)}" for key, value in pairs]
            folder = f"sweep/{number}"
            config = comparison.configs(row, "data.split=tune", *given, folder=folder)[0]
            trials.append(Trial(row, pairs, Cell(f"{row.label} #{number}", config)))
    return trials


def score(result: Mapping[str, Any]) -> float:
    """Return the mean of a result's primary accuracies over the last k rounds."""
    last = result["last_k"]
    views = (last.get("generic/accuracy"), last.get("personal/accuracy"))
    return statistics.fmean(value for value in views if value is not None)


def run_trials(
    trials: Sequence[Trial], *, jobs: int, tell: Callable[[str], None]
) -> dict[str, list[tuple[Trial, float | None]]]:
    """Run the trials and return each row's, with their scores; None where a run failed."""
    outcomes = run_cells([trial.cell for trial in trials], jobs=jobs, tell=tell)
    found: dict[str, list[tuple[Trial, float | None]]] = {}
    for trial, outcome in zip(trials, outcomes, strict=True):
        result = outcome.result
        value = None if result is None else score(result)
        found.setdefault(trial.row.label, []).append((trial, value))
    return found


def sweep_markdown(found: Mapping[str, Sequence[tuple[Trial, float | None]]]) -> str:
    """Return what was tried, a line a row, the best in bold."""
    lines = ["| method | tried: score in % |", "| --- | --- |"]
    for label, trials in found.items():
        best = max((value for _, value in trials if value is not None), default=None)
        cells = []
        for trial, value in trials:
            text = f"{trial}: {'failed' if value is None else f'{100 * value:.1f}'}"
            cells.append(f"**{text}**" if value is not None and value == best else text)
        lines.append(f"| {label} | {', '.join(cells)} |")
    return "\n".join(lines) + "\n"
