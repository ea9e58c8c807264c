"""Runs of a comparison, planned and carried out: rows x settings x seeds -> tables of results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fedlt.comparing.conditions import Results, check_alike, check_comparable
from fedlt.comparing.schedule import Outcome, PlannedRun, jobs_for, run_planned
from fedlt.errors import RunError

if TYPE_CHECKING:
    from fedlt.comparing.comparison import Comparison, Row
    from fedlt.comparing.display import RunsProgress
    from fedlt.comparing.grid import Setting


def planned_runs(comparison: Comparison, grid: Sequence[Setting]) -> list[PlannedRun]:
    """Return the runs of every row in every setting, ordered by setting, row, seed."""
    runs = []
    for setting in grid:
        for row in comparison.rows:
            words = f"{row.label}, {setting}" if str(setting) else row.label
            given = setting.overrides_of(row.label)
            own = comparison.configs(row, *given, folder=setting.folder)
            runs += [PlannedRun(words, config) for config in own]
    return runs


def run_grid(
    comparison: Comparison,
    grid: Sequence[Setting],
    runs: Sequence[PlannedRun],
    *,
    jobs: int | None,
    progress: RunsProgress,
) -> tuple[dict[str, Results], list[Outcome]]:
    """Run :func:`planned_runs`; return each setting's finished rows, and all outcomes.

    Raises:
        FedltError: If rows of a table differ in more than the method.
    """
    folder = comparison.folder()
    places = [(setting, row) for setting in grid for row in comparison.rows]
    seeds = len(runs) // len(places)
    each = [place for place in places for _ in range(seeds)]
    for setting in grid:
        pairs = zip(each, runs, strict=True)
        check_alike({row.label: run.config for (of, row), run in pairs if of == setting})
    outcomes = run_planned(runs, jobs=jobs_for(runs, jobs), progress=progress, within=folder)
    return _finished(comparison.rows, grid, each, outcomes), outcomes


def raise_failed(outcomes: Sequence[Outcome]) -> None:
    """Raise if a run failed.

    Raises:
        RunError: If runs failed; the error names all of them.
    """
    failed = [f"{o.planned}: {o.reason}" for o in outcomes if o.result is None]
    if failed:
        raise RunError(f"{len(failed)} of {len(outcomes)} runs failed: {'; '.join(failed)}")


def _finished(
    rows: Sequence[Row],
    grid: Sequence[Setting],
    places: Sequence[tuple[Setting, Row]],
    outcomes: Sequence[Outcome],
) -> dict[str, Results]:
    """Return the table of each setting, with the rows whose runs are all finished.

    Raises:
        FedltError: If rows of a table differ in more than the method.
    """
    found: dict[str, Results] = {}
    for setting in grid:
        table: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            own = [o for o, place in zip(outcomes, places, strict=True) if place == (setting, row)]
            results = [o.result for o in own if o.result is not None]
            if len(results) == len(own):
                table[row.label] = results
        check_comparable(table)
        if table:
            found[str(setting)] = table
    return found
