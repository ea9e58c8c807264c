"""Result tables for the terminal: both views, primary heads first and alone in bold.

Numbers are percentages with one decimal; what a run does not have (an absent shot group, a view
that was not scored) is a dash. Heads other than the primary ones, and the primary generic head's
streams one by one, are listed for information only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from fedlt.comparing.sheet import DASH, Cell, Sheet, share, spread, to_terminal
from fedlt.data.shots import GROUPS
from fedlt.evaluation.headline import ScoredSet, mass_note, scored_set
from fedlt.evaluation.metrics import spec_of

_PERSONAL = {
    **{word: word for word in ("accuracy", "p10", "worst", "gain")},
    "majority": "majority_guess",
    "held": "accuracy_held",
}

MetricCell = Callable[[str], Cell]  # metric name -> what a table shows


def result_table(result: Mapping[str, Any], which: str = "final") -> RenderableType:
    """Return the two views of one run.

    Args:
        result: The content of ``result.json``.
        which: ``final``, ``last_k``, ``selected`` or ``best_on_test``.
    """
    metrics: Mapping[str, Any] = result.get(which) or {}

    def cell(name: str) -> Cell:
        return share(metrics.get(name), signed=spec_of(name).signed)

    title = f"{_method(result)}, seed {result.get('seed', DASH)}, {_moment(result, which)}"
    faults = faults_text(result)
    notes = [*_notes([result], which), *([f"faults: {faults}"] if faults else [])]
    return _both(title, _views(list(metrics), cell, result), notes)


def seeds_table(results: Sequence[Mapping[str, Any]], which: str = "final") -> RenderableType:
    """Return the two views as mean and 95 % interval over the seeds.

    A number that one of the runs does not have is a dash.

    Args:
        results: The contents of ``result.json``, one or more, a seed each, of one configuration.
        which: As in `result_table`.
    """
    every = [result.get(which) or {} for result in results]
    names = list(dict.fromkeys(name for metrics in every for name in metrics))
    seeds = ", ".join(str(result.get("seed", DASH)) for result in results)
    where = f"{_method(results[0])}, seeds {seeds}, {_moment(results[0], which)}"
    views = _views(names, _over_seeds(every), results[0])
    return _both(f"{where}: mean±95 % interval", views, _notes(results, which))


def comparison_table(
    title: str, rows: Sequence[tuple[str, Sequence[Mapping[str, Any]]]], scored_on: ScoredSet
) -> RenderableType:
    """Return the two views' primary heads, a row each of several models.

    Args:
        title: What is compared.
        rows: A label, and the metrics of each seed: mean and 95 % confidence interval over them.
        scored_on: What all of them are scored on.
    """
    cells = {label: _over_seeds(every) for label, every in rows}
    views = []
    for view, columns in _columns(scored_on).items():
        lines = [[label, *_cells(cell, view, columns)] for label, cell in cells.items()]
        views.append(Sheet(view, [view, *columns], lines))
    return _both(title, views, filter(None, [scored_on.note()]))


def _both(title: str, views: Sequence[Sheet], notes: Iterable[str]) -> RenderableType:
    """Return both views below a title, and lines below them."""
    parts: list[RenderableType] = [Text(f"{title} (accuracies in %)")]
    for sheet in views:
        parts += ["", to_terminal(sheet, first=13, least=8)]
    lines = list(map(Text, notes))
    return Group(*parts, *([""] if lines else []), *lines)


def _notes(results: Sequence[Mapping[str, Any]], which: str) -> list[str]:
    """Return what is unusual about the images that the runs of a row were scored on."""
    return [line for line in (scored_set(results[0]).note(), mass_note(results, which)) if line]


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
    """Return what went wrong in a run and how often; "" where nothing did."""
    faults = result.get("faults") or {}
    return ", ".join(f"{n} {kind}" for kind, n in faults.items() if isinstance(n, int) and n)


def _method(result: Mapping[str, Any]) -> str:
    names = (str(result.get(part, DASH)) for part in ("strategy", "client"))
    words = " + ".join(name.rpartition(":")[2] for name in names)  # of file.py:Class the class
    reference = result.get("reference")
    return f"{words} (reference, not federated: {reference})" if reference else words


def _moment(result: Mapping[str, Any], which: str) -> str:
    rounds = result.get("rounds", DASH)
    return f"round {rounds}" if which == "final" else f"{which} of {rounds} rounds"


def _views(names: Sequence[str], cell: MetricCell, result: Mapping[str, Any]) -> list[Sheet]:
    """Return both views; what was scored on, and which streams there are, a result tells."""
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
