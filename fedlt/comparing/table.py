"""The tables of a comparison for a terminal: both views, prices, and the four moments."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table

from fedlt.comparing.cells import (
    AVERAGE,
    BEST_ON_TEST,
    MOMENTS,
    PRICES,
    accuracy_cell,
    columns,
    is_average,
    majority_guess,
    notes_of,
    price_cells,
    values,
)
from fedlt.comparing.conditions import Results
from fedlt.comparing.stream_tables import stream_rows
from fedlt.comparing.terminal import percent
from fedlt.evaluation.headline import headlines
from fedlt.evaluation.local_test import REFERENCE_WARNING


def _empty(title: str, headings: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(title, min_width=8)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _add(table: Table, label: str, cells: Sequence[str]) -> None:
    table.add_row(label, *(cell.replace(" ± ", "±") for cell in cells))


def tables(results: Results, which: str) -> RenderableType:
    """Return both views, the streams and the prices; a result at least in each row."""
    drawn: list[RenderableType] = []
    for view in ("generic", "personal"):
        own = {name: m for name, m in columns(results).items() if m.startswith(f"{view}/")}
        one = _empty(view, ["all" if name == view else name for name in own])
        for label, runs in results.items():
            _add(one, label, [accuracy_cell(runs, which, metric) for metric in own.values()])
        drawn += ["", one]
    if rows := stream_rows(results, which):
        one = _empty("generic, by stream", list(rows[0].metrics))
        for row in rows:
            cells = [accuracy_cell(row.runs, which, metric) for metric in row.metrics.values()]
            _add(one, row.label, cells)
        drawn[2:2] = ["", one]  # below the generic view
    price = _empty("price", PRICES)
    for label, runs in results.items():
        _add(price, label, list(price_cells(runs).values()))
    return Group(*drawn, "", price)


def moments_tables(results: Results) -> RenderableType:
    """Return the headlines at the four moments side by side, a table a view."""
    drawn: list[RenderableType] = []
    for view, metric in headlines(next(iter(results.values()))[0]).items():
        one = _empty(view, MOMENTS)
        for label, runs in results.items():
            _add(one, label, [accuracy_cell(runs, m, metric) for m in MOMENTS])
        drawn += ["", one]
    return Group(*drawn)


def metric_table(
    results: Results, which: str, columns: Mapping[str, str], *, spread: bool
) -> RenderableType:
    """Return a table of any shares, in percent.

    Args:
        results: The rows.
        which: The moment.
        columns: Heading -> metric.
        spread: Show intervals too; without them a mark stands before the label, to save space.
    """
    table = _empty("method", list(columns))
    for name, runs in results.items():
        label = name
        cells = [accuracy_cell(runs, which, metric) for metric in columns.values()]
        if not spread:
            marked = any(cell.startswith(AVERAGE) for cell in cells)
            label = f"{AVERAGE}{label}" if marked else label
            cells = [cell.partition(" ")[0].lstrip(AVERAGE) for cell in cells]
        _add(table, label, cells)
    return table


def footnotes(settings: Mapping[str, Results], which: str) -> list[str]:
    """Return the lines below the tables: marks, the guess beside the personal view, warnings."""
    lines = []
    rows = [own for results in settings.values() for own in results.values()]
    if any(map(is_average, rows)):
        lines.append(f"{AVERAGE} the mean of personal parts: the method itself has no such model")
    for setting, results in settings.items():
        where = f" ({setting})" if setting else ""
        moment = "final" if which == "all" else which
        guess = majority_guess(list(results.values()), moment)
        if guess is not None:
            lines.append(f"always guessing a client's largest class{where}: {100 * guess:z.1f}")
        lines += [f"{line}{where}" for line in notes_of(results, moment)]
        lines += _coverage(results, moment, where)
    lines += dict.fromkeys(line for runs in rows for run in runs for line in view_notes(run))
    if which in ("all", "best_on_test"):
        lines.append(BEST_ON_TEST)
    return lines


def _coverage(results: Results, which: str, where: str) -> list[str]:
    """Return how much training has seen, where clients were never sampled."""
    said: dict[str, list[str]] = {}
    for label, runs in results.items():
        names = ("personal/never", "train/coverage", "train/coverage_few")
        never, *seen = (values(runs, which, name) for name in names)
        if any(never):
            shares = [percent(statistics.fmean(one) if one else None) for one in seen]
            words = (
                f"{statistics.fmean(never):g} clients never sampled, scored with the generic "
                f"model, tuned where everybody's is; seen: {shares[0]} % of clients, "
                f"{shares[1]} % of the few-classes' images"
            )
            said.setdefault(words, []).append(label)
    if any(len(own) == len(results) for own in said.values()):
        return [f"{words}{where}" for words in said]
    return [f"{', '.join(own)}: {words}{where}" for words, own in said.items()]


def view_notes(run: Mapping[str, Any]) -> list[str]:
    """Return what is unusual about a run's personal view: another view, or a mask."""
    known = run.get("conditions", {})
    view, mask = known.get("evaluate.local_test", "exact"), known.get("mask")
    lines = []
    if view == "reference" or mask == "test":
        lines.append(REFERENCE_WARNING)
    if view == "sampled":
        lines.append("personal accuracies are counted on images drawn in proportion (sampled)")
    if mask == "held":
        lines.append("personal figures: predictions restricted to classes the client trains on")
    return lines
