"""A recipe's figures beside ours: the verdict of every cell, and its tables.

A figure is within where the mean over our seeds differs from it by no more than its tolerance. What
was cut down, changed, or is another quantity gets no such verdict: both numbers are only shown.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rich import box
from rich.table import Table

from fedlt.comparing.cells import values
from fedlt.comparing.conditions import Results
from fedlt.comparing.recipes import UNITS, Figure, Recipe
from fedlt.comparing.statistics import Interval, interval
from fedlt.comparing.terminal import DASH
from fedlt.evaluation.headline import headlines

Word = Literal[
    "within", "not within", "no figure", "another quantity", "not comparable", "not measured"
]
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Cell:
    """One number: the reference, ours, and what to think of it."""

    setting: str
    row: str
    metric: str
    moment: str
    unit: str
    figure: Figure | None  # None: there is none
    ours: Interval | None  # in the unit; None: not measured
    seeds: int
    word: Word


def judge(figure: Figure | None, ours: Interval | None, *, as_written: bool) -> Word:
    """Return the verdict of a cell.

    Args:
        figure: The reference.
        ours: Mean over seeds, in the figure's unit.
        as_written: The recipe was run at full scale, and with nothing changed.
    """
    if ours is None:
        return "not measured"
    if figure is None:
        return "no figure"
    if not as_written:
        return "not comparable"
    if figure.differs:
        return "another quantity"
    near = abs(ours.mean - figure.value) <= figure.tolerance + _ROUNDING
    return "within" if near else "not within"


def cells(recipe: Recipe, tables: Mapping[str, Results], *, as_written: bool) -> list[Cell]:
    """Return a cell for every figure of the settings; of rows without one, both headlines.

    Args:
        recipe: The figures.
        tables: Finished rows by setting.
        as_written: As in :func:`judge`.
    """
    found = []
    for setting, results in tables.items():
        for row in recipe.comparison.rows:
            own = [f for f in recipe.figures if (f.setting, f.row) == (setting, row.label)]
            named = [(f.metric, f.moment, f.unit, f) for f in own]
            runs = results.get(row.label, ())
            both = headlines(runs[0] if runs else {}).values()
            bare = [(metric, "last_k", "percent", None) for metric in both]
            for metric, moment, unit, figure in named or bare:
                scaled = [UNITS[unit] * value for value in values(runs, moment, metric)]
                ours = interval(scaled) if scaled else None
                word = judge(figure, ours, as_written=as_written)
                place = (setting, row.label, metric, moment, unit, figure)
                found.append(Cell(*place, ours, len(scaled), word))
    return found


def summary(found: Sequence[Cell], *, as_written: bool) -> str:
    """Return one line: how many cells are within, or why none is judged."""
    judged = [one for one in found if one.word in ("within", "not within")]
    if not as_written:
        return "cut down or changed: nothing here reproduces a reference, and nothing is judged"
    if not judged:
        return "no cell can be judged"
    within = sum(one.word == "within" for one in judged)
    return f"{within} of {len(judged)} figures within tolerance, by the mean over seeds"


_HEADINGS = ("number", "reference", "ours", "difference", "tolerance", "verdict")


def _texts(one: Cell) -> list[str]:
    """Return a cell's columns, from ``number`` on."""
    ours = reference = difference = tolerance = DASH
    if one.ours is not None:
        ours = f"{one.ours.mean:z.1f}"
        ours += "" if one.ours.half is None else f" ± {one.ours.half:z.1f}"
    if one.figure is not None:
        reference, tolerance = f"{one.figure.value:z.1f}", f"{one.figure.tolerance:z.1f}"
        if one.ours is not None:
            difference = f"{one.ours.mean - one.figure.value:+z.1f}"
    name = f"{one.metric}, {one.moment}"
    return [name, reference, ours, difference, tolerance, one.word]


def _groups(found: Sequence[Cell]) -> dict[tuple[str, str], list[Cell]]:
    """Return the cells of each setting and row."""
    groups: dict[tuple[str, str], list[Cell]] = {}
    for one in found:
        groups.setdefault((one.setting, one.row), []).append(one)
    return groups


def _title(setting: str, row: str, own: Sequence[Cell]) -> str:
    where = f"setting {setting}, {row}" if setting else row
    seeds = max(one.seeds for one in own)
    return f"{where}, {seeds} seed{'' if seeds == 1 else 's'}"


def table(found: Sequence[Cell]) -> Table:
    """Return all cells for a terminal."""
    drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in _HEADINGS:
        is_text = heading in ("number", "verdict")
        drawn.add_column(heading, justify="left" if is_text else "right", no_wrap=not is_text)
    for (setting, row), own in _groups(found).items():
        drawn.add_row(_title(setting, row, own), style="bold")
        for one in own:
            drawn.add_row(*(text.replace(" ± ", "±") for text in _texts(one)))
    return drawn


def markdown(title: str, found: Sequence[Cell], notes: Sequence[str]) -> str:
    """Return the cells in Markdown, a table a setting and row, with sources and notes below.

    Args:
        title: The first line.
        found: The cells.
        notes: Lines below the tables.
    """
    text = f"{title}\n\n"
    for (setting, row), own in _groups(found).items():
        lines = [_HEADINGS, ["---"] * len(_HEADINGS), *(_texts(one) for one in own)]
        text += f"{_title(setting, row, own)}\n\n"
        text += "".join(f"| {' | '.join(line)} |\n" for line in lines) + "\n"
    return text + "".join(f"* {note}\n" for note in [*sources(found), *notes])


def sources(found: Sequence[Cell]) -> list[str]:
    """Return where the figures are from and in what they differ, each once."""
    figures = [one.figure for one in found if one.figure is not None]
    lines = [f"source of {f.row}, {f.metric}, {f.moment}: {f.source}" for f in figures]
    lines += [f"another quantity, {f.row}, {f.metric}: {f.differs}" for f in figures if f.differs]
    return list(dict.fromkeys(lines))


def to_csv(scale: str, found: Sequence[Cell]) -> str:
    """Return a line a cell, unrounded."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    head = ["scale", "setting", "row", "metric", "moment", "unit", "reference", "tolerance"]
    writer.writerow([*head, "ours", "half", "seeds", "verdict", "source", "differs"])
    for one in found:
        figure, ours = one.figure, one.ours
        reference = [None, None] if figure is None else [figure.value, figure.tolerance]
        mine = [None, None] if ours is None else [ours.mean, ours.half]
        said = ["", ""] if figure is None else [figure.source, figure.differs]
        place = [scale, one.setting, one.row, one.metric, one.moment, one.unit]
        writer.writerow([*place, *reference, *mine, one.seeds, one.word, *said])
    return out.getvalue()
