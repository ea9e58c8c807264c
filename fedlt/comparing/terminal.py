"""Result tables for the terminal: both views, primary heads first and alone in bold.

Numbers are percentages with one decimal; what a run does not have (an absent shot group, a view
that was not scored) is a dash. Heads other than the primary ones, and the primary generic head's
streams one by one, are listed for information only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fedlt.comparing.statistics import interval
from fedlt.evaluation.headline import ScoredSet, mass_note, scored_set

DASH = "-"

_GROUPS = {name: name for name in ("many", "medium", "few")}
_PERSONAL = {
    "accuracy": "accuracy",
    "p10": "p10",
    "worst": "worst",
    "gain": "gain",
    "majority": "majority_guess",
    "held": "accuracy_held",
}
_SIGNED = {"personal/gain"}

Cell = Callable[[str], str]  # metric name -> text


def percent(value: float | None, *, signed: bool = False) -> str:
    """Return a share as a percentage with one decimal; None and NaN are a dash."""
    if value is None or math.isnan(value):
        return DASH
    return f"{100 * value:{'+' if signed else ''}z.1f}"


def half_width(half: float) -> str:
    """Return half of an interval of shares in points; one that says nothing is cut to ">100"."""
    return f"{100 * half:z.1f}" if half < 1 else ">100"


def result_table(result: Mapping[str, Any], which: str = "final") -> RenderableType:
    """Return the two views of one run.

    Args:
        result: The content of ``result.json``.
        which: ``final``, ``last_k``, ``selected`` or ``best_on_test``.
    """
    metrics: Mapping[str, Any] = result.get(which) or {}

    def cell(name: str) -> str:
        return percent(metrics.get(name), signed=name in _SIGNED)

    title = f"{_method(result)}, seed {result.get('seed', DASH)}, {_moment(result, which)}"
    views = _views(title, list(metrics), cell, result)
    faults = _faults(result.get("faults") or {})
    lines = [*_notes([result], which), *([f"faults: {faults}"] if faults else [])]
    return Group(views, *_below(lines))


def seeds_table(results: Sequence[Mapping[str, Any]], which: str = "final") -> RenderableType:
    """Return the two views as mean and 95 % interval over the seeds.

    A number that one of the runs does not have is a dash.

    Args:
        results: The contents of ``result.json``, one per seed, of the same configuration.
        which: As in `result_table`.
    """
    every = [result.get(which) or {} for result in results]
    names = list(dict.fromkeys(name for metrics in every for name in metrics))
    seeds = ", ".join(str(result.get("seed", DASH)) for result in results)
    method = _method(results[0]) if results else DASH
    moment = _moment(results[0], which) if results else which
    title = f"{method}, seeds {seeds}, {moment}: mean±95 % interval"
    views = _views(title, names, _over_seeds(every), results[0] if results else {})
    return Group(views, *_below(_notes(results, which)))


def _notes(results: Sequence[Mapping[str, Any]], which: str) -> list[str]:
    """Return what is unusual about the images that the runs of a row were scored on."""
    lines = [*(scored_set(result).note() for result in results[:1]), mass_note(results, which)]
    return [line for line in lines if line]


def _below(lines: Sequence[str]) -> list[RenderableType]:
    """Return lines as they stand under a table, with an empty one before them."""
    return ["", *map(Text, lines)] if lines else []


def comparison_table(
    title: str, rows: Sequence[tuple[str, Sequence[Mapping[str, Any]]]], scored_on: ScoredSet
) -> RenderableType:
    """Return the two views' primary heads, a row each of several models.

    Args:
        title: What is compared.
        rows: A label, and the metrics of each seed: mean and 95 % confidence interval over them.
        scored_on: What all of them are scored on.
    """
    tables: list[RenderableType] = [Text(f"{title} (accuracies in %)")]
    for view, columns in _columns(scored_on).items():
        table = _empty(view, columns)
        for label, every in rows:
            cell = _over_seeds(every)
            table.add_row(label, *(cell(f"{view}/{metric}") for metric in columns.values()))
        tables += ["", table]
    note = scored_on.note()
    return Group(*tables, *_below([note] if note else []))


def _columns(scored_on: ScoredSet) -> dict[str, dict[str, str]]:
    """Return each view's headings and metrics, the headline first."""
    return {"generic": scored_on.columns | _GROUPS, "personal": _PERSONAL}


def _over_seeds(every: Sequence[Mapping[str, Any]]) -> Cell:
    def cell(name: str) -> str:
        values = [metrics.get(name) for metrics in every]
        known = [value for value in values if value is not None and not math.isnan(value)]
        if not values or len(known) < len(values):
            return DASH
        found = interval(known)
        mean = percent(found.mean, signed=name in _SIGNED)
        return mean if found.half is None else f"{mean}±{half_width(found.half)}"

    return cell


def _faults(faults: Mapping[str, Any]) -> str:
    """Return what went wrong in a run and how often; "" where nothing did."""
    return ", ".join(f"{n} {kind}" for kind, n in faults.items() if isinstance(n, int) and n)


def _method(result: Mapping[str, Any]) -> str:
    names = (str(result.get(part, DASH)) for part in ("strategy", "client"))
    words = " + ".join(name.rpartition(":")[2] for name in names)  # of file.py:Class the class
    reference = result.get("reference")
    return f"{words} (reference, not federated: {reference})" if reference else words


def _moment(result: Mapping[str, Any], which: str) -> str:
    rounds = result.get("rounds", DASH)
    return f"round {rounds}" if which == "final" else f"{which} of {rounds} rounds"


def _views(
    title: str, names: Sequence[str], cell: Cell, result: Mapping[str, Any]
) -> RenderableType:
    """Return both views; what was scored on, and which streams there are, a result tells."""
    columns, streams = _columns(scored_set(result)), result.get("streams") or ()
    generic = _view("generic", columns["generic"], names, cell, streams)
    personal = _view("personal", columns["personal"], names, cell)
    return Group(Text(f"{title} (accuracies in %)"), "", generic, "", personal)


def _empty(view: str, columns: Mapping[str, str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(view, min_width=13)
    for heading in columns:
        table.add_column(heading, justify="right", min_width=8, no_wrap=True)
    return table


def _view(
    view: str,
    columns: Mapping[str, str],
    names: Sequence[str],
    cell: Cell,
    streams: Sequence[str] = (),
) -> Table:
    table = _empty(view, columns)
    primary = [cell(f"{view}/{metric}") for metric in columns.values()]
    table.add_row("primary head", *primary, style="bold")
    for name in _beside(view, names):
        label = f"stream {name}" if name in streams else name
        table.add_row(label, *(cell(f"{view}/{name}/{metric}") for metric in columns.values()))
    if view == "personal":
        table.add_row("generic model", cell("personal/generic"), *[""] * (len(columns) - 1))
    return table


def _beside(view: str, names: Sequence[str]) -> list[str]:
    """Return the streams and heads with ``<view>/<name>/accuracy``, in the order of the result."""
    start, end = f"{view}/", "/accuracy"
    return [
        name[len(start) : -len(end)]
        for name in names
        if name.startswith(start) and name.endswith(end) and name.count("/") == 2
    ]
