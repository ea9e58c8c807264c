"""Result tables for the terminal: both views, primary heads first and alone in bold.

Numbers are percentages with one decimal; a missing number (an absent class group, a view that was
not scored) is a dash. Heads other than the primary heads, and the primary generic head's streams
one by one, are listed for information only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from fedlt.comparing.sheet import DASH, Cell, Sheet, share, spread, to_terminal
from fedlt.data.shots import GROUPS
from fedlt.evaluation.headline import ScoredSet, mass_note, scored_note, scored_set
from fedlt.evaluation.metrics import spec_of

_PERSONAL = {
    **{word: word for word in ("accuracy", "p10", "worst", "gain")},
    "majority": "majority_guess",
    "held": "accuracy_held",
}

MetricCell = Callable[[str], Cell]  # metric name -> cell of a table


def result_table(result: Mapping[str, Any], which: str = "final") -> RenderableType:
    """Return the table of both views of one run, for the terminal.

    Args:
        result: The content of ``result.json``.
        which: ``final``, ``last_k``, ``selected`` or ``best_on_test``.
    """
    return _both(*result_sheets(result, which))


def result_sheets(
    result: Mapping[str, Any], which: str = "final"
) -> tuple[str, list[Sheet], list[str]]:
    """Return the title of one run's results, a sheet for each view, and the notes below.

    Args:
        result: The content of ``result.json``.
        which: ``final``, ``last_k``, ``selected`` or ``best_on_test``.
    """
    metrics: Mapping[str, Any] = result.get(which) or {}

    def cell(name: str) -> Cell:
        return share(metrics.get(name), signed=spec_of(name).signed)

    title = f"{method_words(result)}, seed {result.get('seed', DASH)}, {_moment(result, which)}"
    faults = faults_text(result)
    notes = [*_notes([result], which), *([f"faults: {faults}"] if faults else [])]
    return title, _views(list(metrics), cell, result), notes


def seeds_table(results: Sequence[Mapping[str, Any]], which: str = "final") -> RenderableType:
    """Return the table of both views, as mean and 95 % interval over the seeds.

    A number that a run lacks is a dash.

    Args:
        results: The contents of ``result.json``, one per seed, at least one, of one configuration.
        which: As in `result_table`.
    """
    every = [result.get(which) or {} for result in results]
    names = list(dict.fromkeys(name for metrics in every for name in metrics))
    seeds = ", ".join(str(result.get("seed", DASH)) for result in results)
    where = f"{method_words(results[0])}, seeds {seeds}, {_moment(results[0], which)}"
    views = _views(names, _over_seeds(every), results[0])
    return _both(f"{where}: mean±95 % interval", views, _notes(results, which))


def comparison_table(
    title: str, rows: Sequence[tuple[str, Sequence[Mapping[str, Any]]]], result: Mapping[str, Any]
) -> RenderableType:
    """Return the table of both views' primary heads, one row per model.

    Args:
        title: The title of the table.
        rows: Label and metrics per seed; shown as mean and 95 % confidence interval.
        result: A result with the test set of all rows.
    """
    cells = {label: _over_seeds(every) for label, every in rows}
    views = []
    for view, columns in _columns(scored_set(result)).items():
        lines = [[label, *_cells(cell, view, columns)] for label, cell in cells.items()]
        views.append(Sheet(view, [view, *columns], lines))
    return _both(title, views, filter(None, [scored_note(result)]))


def _both(title: str, views: Sequence[Sheet], notes: Iterable[str]) -> RenderableType:
    """Return the tables of both views below a title, with notes below."""
    parts: list[RenderableType] = [Text(f"{title} (accuracies in %)")]
    for sheet in views:
        parts += ["", to_terminal(sheet, first=13, least=8)]
    lines = list(map(Text, notes))
    return Group(*parts, *([""] if lines else []), *lines)


def _notes(results: Sequence[Mapping[str, Any]], which: str) -> list[str]:
    """Return notes on unusual test images of the runs of a row."""
    return [line for line in (scored_note(results[0]), mass_note(results, which)) if line]


def _columns(scored_on: ScoredSet) -> dict[str, dict[str, str]]:
    """Return each view's headings and metrics, the headline first."""
    groups = {name: name for name in GROUPS}
    return {"generic": scored_on.columns | groups, "personal": _PERSONAL}


def _cells(cell: MetricCell, start: str, columns: Mapping[str, str]) -> list[Cell]:
    return [cell(f"{start}/{metric}") for metric in columns.values()]


def _over_seeds(every: Sequence[Mapping[str, Any]]) -> MetricCell:
    def cell(name: str) -> Cell:
        values = [metrics.get(name) for metrics in every]
        known = [value for value in values if value is not None and not math.isnan(value)]
        return spread(known if len(known) == len(values) else (), signed=spec_of(name).signed)

    return cell


def faults_text(result: Mapping[str, Any]) -> str:
    """Return the faults of a run and their numbers as text; "" without faults."""
    faults = result.get("faults") or {}
    return ", ".join(f"{n} {kind}" for kind, n in faults.items() if isinstance(n, int) and n)


def method_words(result: Mapping[str, Any]) -> str:
    """Return the names of a run's strategy and client plugin; of ``file.py:Class`` the class."""
    names = (str(result.get(part, DASH)) for part in ("strategy", "client"))
    words = " + ".join(name.rpartition(":")[2] for name in names)
    reference = result.get("reference")
    return f"{words} (reference, not federated: {reference})" if reference else words


def _moment(result: Mapping[str, Any], which: str) -> str:
    rounds = result.get("rounds", DASH)
    return f"round {rounds}" if which == "final" else f"{which} of {rounds} rounds"


def _views(names: Sequence[str], cell: MetricCell, result: Mapping[str, Any]) -> list[Sheet]:
    """Return the sheets of both views; test set and streams are taken from ``result``."""
    streams = result.get("streams") or ()
    sheets = []
    for view, columns in _columns(scored_set(result)).items():
        rows: list[list[object]] = [["primary head", *_cells(cell, view, columns)]]
        for name in _beside(view, names):
            is_stream = view == "generic" and name in streams
            label = f"stream {name}" if is_stream else name
            rows.append([label, *_cells(cell, f"{view}/{name}", columns)])
        if view == "personal":
            blank = [Cell("")] * (len(columns) - 1)
            rows.append(["generic model", cell("personal/generic"), *blank])
        sheets.append(Sheet(view, [view, *columns], rows, marks=[0]))
    return sheets


def _beside(view: str, names: Sequence[str]) -> list[str]:
    """Return the streams and heads with ``<view>/<name>/accuracy``, in the order of the result."""
    start, end = f"{view}/", "/accuracy"
    return [
        name[len(start) : -len(end)]
        for name in names
        if name.startswith(start) and name.endswith(end) and name.count("/") == 2
    ]
