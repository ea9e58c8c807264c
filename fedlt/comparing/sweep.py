"""Sweep: a search for hyperparameters, scored on the validation images of ``data.split: tune``.

Every row is searched alone, on the first seed: all combinations of the row's lists, or a number of
trials proposed by Optuna. The score is the mean of the method's headlines, generic and personal,
over the last k rounds. A finished trial is read, not run again.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedlt.comparing.comparison import Comparison, Row
from fedlt.comparing.display import RunsProgress
from fedlt.comparing.grid import folder_name
from fedlt.comparing.schedule import PlannedRun, jobs_for, run_planned
from fedlt.comparing.search import TRIED, Grid, Optuna, Search, Values, described, tried
from fedlt.comparing.sheet import Sheet, to_csv, to_markdown
from fedlt.errors import FedltError
from fedlt.evaluation.headline import headlines
from fedlt.rng import key as random_key


@dataclass(frozen=True)
class Trial:
    """Trial: values that are tried in one row."""

    row: Row
    values: Values
    planned: PlannedRun

    def __str__(self) -> str:
        """Return the values as text such as ``lr=0.1 mu=0.01``, with the last word of each key."""
        return described(self.values)


Found = Mapping[str, Sequence[tuple[Trial, float | None]]]  # by label; None: failed


def make_searches(comparison: Comparison, trials: int | None) -> dict[str, Search]:
    """Return each row's search: Optuna if ``trials`` is set, otherwise every combination.

    Raises:
        FedltError: If a row has no search, or a range needs a number of trials.
    """
    found: dict[str, Search] = {}
    for row in _rows(comparison):
        if not row.search:
            raise FedltError(f"{comparison.path}: row {row.label!r} has no search: {{key: values}}")
        if trials is None:
            found[row.label] = Grid(row.search)
        else:
            seed = random_key(comparison.configs(row)[0].seed, "search") % 2**32
            found[row.label] = Optuna(row.search, trials=trials, seed=seed)
    return found


def _rows(comparison: Comparison) -> list[Row]:
    """Return the rows to search: all rows but controls."""
    return [row for row in comparison.rows if not row.is_control]


def _trial(comparison: Comparison, row: Row, values: Values) -> Trial:
    given = [f"{key}={json.dumps(value)}" for key, value in values]
    folder = f"sweep/{folder_name(dict(values))}"
    config = comparison.trial_config(row, given, folder)
    return Trial(row, values, PlannedRun(f"{row.label}, {described(values)}", config))


def score(result: Mapping[str, Any]) -> float | None:
    """Return the mean of a result's headlines, generic and personal, over the last k rounds.

    None if the result has no headline, since no client holds a class that was scored.
    """
    views = [result["last_k"].get(metric) for metric in headlines(result).values()]
    known = [value for value in views if value is not None]
    return statistics.fmean(known) if known else None


def run_search(
    comparison: Comparison,
    searches: Mapping[str, Search],
    *,
    jobs: int | None,
    progress: RunsProgress,
) -> dict[str, list[tuple[Trial, float | None]]]:
    """Return all trials with scores, after running the searches; rows advance in parallel.

    Args:
        comparison: The comparison with the rows.
        searches: The searches by label, from :func:`make_searches`.
        jobs: Number of runs at once; None: one per core.
        progress: Is told about runs and rounds.

    Returns:
        The trials of each row in order, with their scores; None for a failed trial.
    """
    rows = _rows(comparison)
    found: dict[str, list[tuple[Trial, float | None]]] = {row.label: [] for row in rows}
    while True:
        asked = {row.label: searches[row.label].ask() for row in rows}
        batch = [_trial(comparison, row, values) for row in rows for values in asked[row.label]]
        if not batch:
            return found
        known = _scores(comparison, batch, jobs, progress)
        for label in asked:
            own = [(trial, known[_place(trial)]) for trial in batch if trial.row.label == label]
            searches[label].tell([value for _, value in own])
            found[label] += own


def _place(trial: Trial) -> tuple[str, str]:
    """Return the folder of a trial's run directory; equal values have equal folders."""
    return trial.planned.config.output, trial.planned.config.name


def _scores(
    comparison: Comparison, batch: Sequence[Trial], jobs: int | None, progress: RunsProgress
) -> dict[tuple[str, str], float | None]:
    """Return the scores of trials by place; trials with equal values are run once."""
    runs = {_place(trial): trial.planned for trial in batch}
    every = list(runs.values())
    outcomes = run_planned(
        every, jobs=jobs_for(every, jobs), progress=progress, within=comparison.folder() / "sweep"
    )
    return {
        place: None if outcome.result is None else score(outcome.result)
        for place, outcome in zip(runs, outcomes, strict=True)
    }


def sweep_markdown(found: Found) -> str:
    """Return the trials in Markdown, a line for each row."""
    rows = [
        [label, tried([(trial.values, value) for trial, value in trials])]
        for label, trials in found.items()
    ]
    table = to_markdown(Sheet("", ["method", TRIED], rows))
    return "\n".join([table, *_spent(found)])


def _spent(found: Found) -> list[str]:
    """Return a note about the privacy that trials of private rows spend; [] without such rows."""
    private = {
        label: len(trials)
        for label, trials in found.items()
        if any((rules := one.planned.config.privacy) and rules.is_noisy for one, _ in trials)
    }
    if not private:
        return []
    counts = ", ".join(f"{label} {count}" for label, count in private.items())
    words = "Every trial of a private row spends privacy that no row's epsilon holds"
    return [f"{words}: {counts}.\n"]


def sweep_csv(found: Found) -> str:
    """Return CSV text of the trials, one line each: values as JSON and unrounded score."""
    rows = (
        [label, number, value, json.dumps(dict(trial.values))]
        for label, trials in found.items()
        for number, (trial, value) in enumerate(trials)
    )
    return to_csv(["method", "trial", "score", "values"], rows)
