"""Tables of a comparison: both views, streams, prices, the four moments; and footnotes."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType

from fedlt.comparing.cells import (
    AVERAGE,
    BEST_ON_TEST,
    MOMENTS,
    accuracy_cell,
    columns,
    is_average,
    majority_guess,
    notes_of,
    price_cells,
    values,
)
from fedlt.comparing.conditions import Results
from fedlt.comparing.privacy_price import (
    clipped_sheet,
    epsilon_cells,
    price_sheet,
    privacy_notes,
)
from fedlt.comparing.sheet import Cell, Sheet, percent, text_of, to_terminal
from fedlt.comparing.stream_tables import stream_rows
from fedlt.evaluation.headline import headlines
from fedlt.evaluation.local_test import REFERENCE_WARNING


def figures_sheet(results: Results, which: str) -> Sheet:
    """Return the main table, one row per method: metrics of both views, then prices.

    Args:
        results: The rows; at least one result in each.
        which: A moment; ``all``: the headlines at the four moments side by side, without prices.
    """
    if which == "all":
        both = headlines(next(iter(results.values()))[0])
        shown = {f"{view} {m}": (m, metric) for view, metric in both.items() for m in MOMENTS}
        return _sheet("method", results, shown)
    bare = _sheet("method", results, {n: (which, m) for n, m in columns(results).items()})
    prices = [price_cells(runs) for runs in results.values()]
    spent = epsilon_cells(results)
    if spent is not None:
        prices = [{"epsilon": one, **own} for one, own in zip(spent, prices, strict=True)]
    rows = [[*row, *price.values()] for row, price in zip(bare.rows, prices, strict=True)]
    return Sheet(bare.title, [*bare.columns, *prices[0]], rows)


def stream_sheets(results: Results, which: str) -> list[Sheet]:
    """Return the table of the streams; [] if no stream was scored, and for ``all``."""
    rows = [] if which == "all" else stream_rows(results, which)
    cells = [
        [row.label, *(accuracy_cell(row.runs, which, metric) for metric in row.metrics.values())]
        for row in rows
    ]
    title = "generic, by stream"
    return [Sheet(title, [title, *rows[0].metrics], cells)] if rows else []


def privacy_sheets(results: Results, which: str) -> list[Sheet]:
    """Return the tables of private rows: clipped updates, and the price of privacy."""
    found = [clipped_sheet(results), None if which == "all" else price_sheet(results, which)]
    return [sheet for sheet in found if sheet is not None]


def _narrow(sheet: Sheet) -> list[Sheet]:
    """Return a wide sheet as two: its columns up to ``personal``, and the others."""
    if "personal" not in sheet.columns:
        return [sheet]
    cut = list(sheet.columns).index("personal")
    halves = (sheet.columns[1:cut], sheet.columns[cut:])
    return [sheet.part(sheet.title, {name: name for name in half}) for half in halves]


def metric_sheet(
    results: Results, which: str, columns: Mapping[str, str], *, spread: bool = True
) -> Sheet:
    """Return a table of given metrics (shares), in percent.

    Args:
        results: The rows.
        which: The moment.
        columns: Heading -> metric.
        spread: True to show intervals; without intervals a mark stands before the label.
    """
    sheet = _sheet("method", results, {name: (which, metric) for name, metric in columns.items()})
    if spread:
        return sheet
    rows = []
    for label, *cells in sheet.rows:
        texts = list(map(text_of, cells))
        mark = AVERAGE if any(text.startswith(AVERAGE) for text in texts) else ""
        brief = (text.partition(" ")[0].lstrip(AVERAGE) for text in texts)
        rows.append([f"{mark}{label}", *map(Cell, brief)])
    return Sheet(sheet.title, sheet.columns, rows)


def _sheet(title: str, results: Results, shown: Mapping[str, tuple[str, str]]) -> Sheet:
    """Return a table of accuracies, one row per method; ``shown``: heading -> (moment, metric)."""
    rows = [
        [label, *(accuracy_cell(runs, moment, metric) for moment, metric in shown.values())]
        for label, runs in results.items()
    ]
    return Sheet(title, [title, *shown], rows)


def terminal_tables(results: Results, which: str) -> RenderableType:
    """Return :func:`figures_sheet` for the terminal, one table per view, streams and prices."""
    whole, views = figures_sheet(results, which), ("generic", "personal")
    if which == "all":
        parts = [whole.part(view, {f"{view} {m}": m for m in MOMENTS}) for view in views]
    else:
        shown = columns(results).items()
        own = {view: [name for name, m in shown if m.startswith(f"{view}/")] for view in views}
        parts = [
            whole.part(view, {name: "all" if name == view else name for name in names})
            for view, names in own.items()
        ]
        parts[1:1] = stream_sheets(results, which)
        prices = [name for name in whole.columns[1:] if name not in columns(results)]
        parts.append(whole.part("price", {name: name for name in prices}))
        parts += [one for sheet in privacy_sheets(results, which) for one in _narrow(sheet)]
    return Group(*(line for part in parts for line in ("", to_terminal(part))))


def footnotes(tables: Mapping[str, Results], which: str) -> list[str]:
    """Return the footnotes of tables: marks, the majority guess of the personal view, warnings."""
    lines = []
    rows = [own for results in tables.values() for own in results.values()]
    if any(map(is_average, rows)):
        lines.append(f"{AVERAGE} the mean of personal parts: the method itself has no such model")
    for setting, results in tables.items():
        where = f" ({setting})" if setting else ""
        moment = "final" if which == "all" else which
        guess = majority_guess(list(results.values()), moment)
        if guess is not None:
            lines.append(f"always guessing a client's largest class{where}: {100 * guess:z.1f}")
        lines += [f"{line}{where}" for line in notes_of(results, moment)]
        lines += _coverage(results, moment, where)
        lines += privacy_notes(results)
    lines += dict.fromkeys(line for runs in rows for run in runs for line in view_notes(run))
    if which in ("all", "best_on_test"):
        lines.append(BEST_ON_TEST)
    return lines


def _coverage(results: Results, which: str, where: str) -> list[str]:
    """Return notes on clients never sampled, with the shares of clients and images seen."""
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
    """Return notes on an unusual personal view: another local test set, or a mask."""
    known = run.get("conditions", {})
    view, mask = known.get("evaluate.local_test", "exact"), known.get("mask")
    lines = []
    if view == "reference" or mask == "test":
        lines.append(REFERENCE_WARNING)
    if view == "sampled":
        lines.append("personal accuracies are counted on images drawn in proportion (sampled)")
    if view == "own":
        lines.append("personal figures: every client is scored on its own test images (own)")
    if mask == "held":
        lines.append("personal figures: predictions restricted to classes the client trains on")
    return lines
