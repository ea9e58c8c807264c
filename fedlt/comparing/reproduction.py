"""Reference figures of a recipe beside fedlt's: verdict of each figure, and tables.

A figure is "within" if the mean over seeds differs from the reference by at most the tolerance. A
run that was cut down or changed, and another quantity, get no verdict: both numbers are shown.
A curve (:mod:`fedlt.comparing.published_curves`) is judged also over the recipe's first rounds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.table import Table

from fedlt.comparing.cells import Runs, values
from fedlt.comparing.conditions import Results
from fedlt.comparing.published_curves import ReproducedCurve, reproduced_curve
from fedlt.comparing.recipes import ROUNDS_TO, UNITS, Figure, Recipe
from fedlt.comparing.rounds_to import rounds_to
from fedlt.comparing.sheet import DASH, Cell, Sheet, number, to_csv, to_markdown, to_terminal
from fedlt.comparing.statistics import Interval, interval
from fedlt.evaluation.headline import headlines

FigureVerdict = Literal[
    "within", "not within", "no figure", "another quantity", "not comparable", "not measured"
]
_ROUNDING = 1e-9


@dataclass(frozen=True)
class ReproducedFigure:
    """Number of a recipe: the reference, fedlt's, and the verdict."""

    setting: str
    row: str
    metric: str
    moment: str
    unit: str
    figure: Figure | None  # None: no reference
    ours: Interval | None  # in the figure's unit; None: not measured
    seeds: int
    word: FigureVerdict


Reproduced = ReproducedFigure | ReproducedCurve


def judge(figure: Figure | None, ours: Interval | None, *, as_written: bool) -> FigureVerdict:
    """Return the verdict of a figure.

    Args:
        figure: The reference.
        ours: Mean over seeds, in the figure's unit.
        as_written: True if the recipe was run at full scale and unchanged.
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


def reproduced(
    recipe: Recipe,
    tables: Mapping[str, Results],
    *,
    as_written: bool,
    level: float | None = None,
) -> list[ReproducedFigure]:
    """Return every reference figure beside fedlt's number.

    A row without reference figures gives its headlines (generic and personal) instead.

    Args:
        recipe: The recipe with the reference figures.
        tables: Finished rows by setting.
        as_written: As in :func:`judge`.
        level: Of the moment ``rounds_to``.
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
                numbers = _numbers(runs, moment, metric, level)
                scaled = [UNITS[unit] * value for value in numbers]
                ours = interval(scaled) if scaled else None
                word = judge(figure, ours, as_written=as_written)
                place = (setting, row.label, metric, moment, unit, figure)
                found.append(ReproducedFigure(*place, ours, len(scaled), word))
    return found


def _numbers(runs: Runs, moment: str, metric: str, level: float | None) -> list[float]:
    """Return a figure's numbers over the seeds; [] if a run lacks the number.

    At the moment ``rounds_to`` these are the rounds in which the metric reaches the level.
    """
    if moment != ROUNDS_TO or level is None:
        return values(runs, moment, metric)
    known = [one for run in runs if (one := rounds_to(run, level, metric)) is not None]
    return known if len(known) == len(runs) else []


def reproduced_curves(
    recipe: Recipe, tables: Mapping[str, Results], *, judged: Collection[tuple[str, str]]
) -> list[ReproducedCurve]:
    """Return every published curve beside fedlt's, in the order of settings and rows.

    Args:
        recipe: The recipe with the curves.
        tables: Finished rows by setting.
        judged: The pairs (setting, row) whose runs are the recipe's, or its first rounds.
    """
    return [
        reproduced_curve(
            curve,
            results.get(row.label, ()),
            UNITS[curve.unit],
            judged=(setting, row.label) in judged,
        )
        for setting, results in tables.items()
        for row in recipe.comparison.rows
        for curve in recipe.curves
        if (curve.setting, curve.row) == (setting, row.label)
    ]


def summary(found: Sequence[ReproducedFigure], *, as_written: bool) -> str:
    """Return one line: the number of figures within tolerance, or why no figure is judged."""
    judged = [one for one in found if one.word in ("within", "not within")]
    if not as_written:
        return (
            "cut down or changed: nothing here reproduces a reference figure; no figure is judged"
        )
    if not judged:
        return "no cell can be judged"
    within = sum(one.word == "within" for one in judged)
    return f"{within} of {len(judged)} figures within tolerance, by the mean over seeds"


def curves_summary(curves: Sequence[ReproducedCurve]) -> list[str]:
    """Return a line with the number of curves within tolerance, and what the numbers are."""
    judged = [one for one in curves if one.word in ("within", "not within")]
    lines = []
    if judged:
        within = sum(one.word == "within" for one in judged)
        lines = [f"{within} of {len(judged)} curves within tolerance, over the rounds named"]
    if any(one.distance is not None for one in curves):
        lines.append(
            "curve: the difference is the root mean square between means of five rounds, the "
            "tolerance is what the published curve jumps from round to round over the same rounds"
        )
    if any(one.word == "not measured" for one in curves):
        lines.append(
            "curve not measured: both need five rounds or more around which all of five are known"
        )
    return lines


_HEADINGS = ("number", "reference", "ours", "difference", "tolerance", "verdict")


def _row(one: Reproduced) -> list[Cell | str]:
    """Return the columns of a figure or a curve, from the column ``number`` on."""
    if isinstance(one, ReproducedCurve):
        apart = number(one.distance, ".1f")
        cells = (Cell(DASH), Cell(DASH), apart, number(one.tolerance, ".1f"))
        return [f"{one.curve.metric}, {one.span}", *cells, one.word]
    ours = reference = difference = tolerance = DASH
    if one.ours is not None:
        ours = f"{one.ours.mean:z.1f}"
        ours += "" if one.ours.half is None else f" ± {one.ours.half:z.1f}"
    if one.figure is not None:
        reference, tolerance = f"{one.figure.value:z.1f}", f"{one.figure.tolerance:z.1f}"
        if one.ours is not None:
            difference = f"{one.ours.mean - one.figure.value:+z.1f}"
    numbers = map(Cell, (reference, ours, difference, tolerance))
    return [f"{one.metric}, {one.moment}", *numbers, one.word]


def _sheets(found: Sequence[Reproduced]) -> list[Sheet]:
    """Return a table for each setting and row."""
    groups: dict[tuple[str, str], list[Reproduced]] = {}
    for one in found:
        groups.setdefault((one.setting, one.row), []).append(one)
    sheets = []
    for (setting, row), own in groups.items():
        where = f"setting {setting}, {row}" if setting else row
        seeds = max(one.seeds for one in own)
        title = f"{where}, {seeds} seed{'' if seeds == 1 else 's'}"
        sheets.append(Sheet(title, _HEADINGS, list(map(_row, own))))
    return sheets


def table(found: Sequence[Reproduced]) -> Table:
    """Return figures and curves as one table for the terminal, titled by setting and row."""
    rows: list[Sequence[object]] = []
    titles = []
    for sheet in _sheets(found):
        titles.append(len(rows))
        rows += [[sheet.title, *[Cell("")] * 4, ""], *sheet.rows]
    return to_terminal(Sheet("", _HEADINGS, rows, marks=titles), first=None)


def markdown(title: str, found: Sequence[Reproduced], notes: Sequence[str]) -> str:
    """Return figures and curves in Markdown, one table per setting and row, with sources and notes.

    Args:
        title: The first line.
        found: The figures and curves.
        notes: Lines below the tables.
    """
    text = f"{title}\n\n"
    text += "".join(f"{sheet.title}\n\n{to_markdown(sheet)}\n" for sheet in _sheets(found))
    return text + "".join(f"* {note}\n" for note in [*sources(found), *notes])


def sources(found: Sequence[Reproduced]) -> list[str]:
    """Return the distinct sources of figures and curves, and reasons why quantities differ."""
    curves = [one.curve for one in found if isinstance(one, ReproducedCurve)]
    figures = [f for one in found if isinstance(one, ReproducedFigure) and (f := one.figure)]
    lines = [f"source of {f.row}, {f.metric}, {f.moment}: {f.source}" for f in figures]
    lines += [f"source of {c.row}, {c.metric}, curve: {c.source}" for c in curves]
    lines += [f"another quantity, {f.row}, {f.metric}: {f.differs}" for f in figures if f.differs]
    lines += [f"another quantity, {c.row}, {c.metric}: {c.differs}" for c in curves if c.differs]
    return list(dict.fromkeys(lines))


def figures_csv(scale: str, found: Sequence[Reproduced]) -> str:
    """Return CSV text, one line per figure or curve, unrounded.

    The moment of a curve is ``curve``; it has ``distance`` and ``rounds`` instead of ``reference``,
    ``ours`` and ``half``.
    """
    head = ["scale", "setting", "row", "metric", "moment", "unit", "reference", "tolerance"]
    rows: list[list[object]] = []
    for one in found:
        if isinstance(one, ReproducedCurve):
            curve = one.curve
            place = [scale, one.setting, one.row, curve.metric, "curve", curve.unit]
            numbers = [None, one.tolerance, None, None, one.seeds, one.word]
            span = " ".join(map(str, one.rounds))
            rows.append([*place, *numbers, curve.source, curve.differs, one.distance, span])
            continue
        figure, ours = one.figure, one.ours
        reference = [None, None] if figure is None else [figure.value, figure.tolerance]
        mine = [None, None] if ours is None else [ours.mean, ours.half]
        said = ["", ""] if figure is None else [figure.source, figure.differs]
        place = [scale, one.setting, one.row, one.metric, one.moment, one.unit]
        rows.append([*place, *reference, *mine, one.seeds, one.word, *said, None, ""])
    head += ["ours", "half", "seeds", "verdict", "source", "differs", "distance", "rounds"]
    return to_csv(head, rows)
