"""Pictures of metrics over rounds: mean over seeds as a line, range of seeds as a band."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fedlt.comparing.cells import mark
from fedlt.comparing.sheet import Cell, Sheet, between, share
from fedlt.report.finished import Method
from fedlt.report.marks import BASELINE, Mark, averaged, explain, line_of, name_of, said, trivial
from fedlt.report.picture import Picture
from fedlt.report.style import (
    LOOKS,
    grid_of,
    legend_below,
    new_figure,
    percent_axis,
    round_axis,
)
from fedlt.report.tones import BACKDROP

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PERSONAL = "Personal models, each on its client's own classes (mean over clients)"
_HOW = (
    "Each point is one evaluation; lines are means over the seeds, bands reach from the lowest to "
    "the highest seed. Curves that still rise say that more rounds would change the figures."
)

Series = dict[int, list[float]]  # round -> one value per seed


def by_round(method: Method, metric: str) -> Series:
    """Return a metric in all rounds in which every seed has the metric."""
    rows = [
        {int(row["round"]): row[metric] for row in run.rounds if row.get(metric) is not None}
        for run in method.runs
    ]
    shared = sorted(set.intersection(*(set(row) for row in rows)))
    return {number: [float(row[number]) for row in rows] for number in shared}


def draw_lines(axes: Axes, series: Series, style: dict[str, Any], label: str = "") -> None:
    """Draw the line of a method, with a band for several seeds."""
    rounds = list(series)
    axes.plot(rounds, [statistics.fmean(v) for v in series.values()], label=label, **style)
    if any(len(values) > 1 for values in series.values()):
        low, high = ([f(values) for values in series.values()] for f in (min, max))
        axes.fill_between(rounds, low, high, color=style["color"], alpha=0.15, linewidth=0)


def learning_curves(methods: Sequence[Method]) -> list[Picture]:
    """Return the pictures of both views' accuracies over the rounds."""
    series = {
        view: {m.label: series for m in methods if (series := by_round(m, metric))}
        for view, metric in methods[0].scored_on.headlines.items()
    }
    found = {view: own for view, own in series.items() if own}
    scored_on = methods[0].scored_on
    what = f"balanced {scored_on.name}" if scored_on.balanced else "mean recall over classes"
    names = {"generic": f"Generic model, {what}", "personal": _PERSONAL}
    if len(methods) <= len(LOOKS):
        return _together(methods, found, names)
    return [_panels(view, methods, own, names[view]) for view, own in found.items()]


def _together(
    methods: Sequence[Method], found: dict[str, dict[str, Series]], names: dict[str, str]
) -> list[Picture]:
    if not found:
        return []
    figure = new_figure(4.8 + 0.25 * -(-len(methods) // 5))
    made = figure.subplots(1, len(found), squeeze=False)[0]
    marks: list[Mark] = []
    for axes, view in zip(made, found, strict=True):
        for position, method in enumerate(methods):
            if method.label in found[view]:
                style = line_of(position, method, generic=view == "generic")
                draw_lines(axes, found[view][method.label], style, _name(method))
        marks += _marks([axes], methods, view)
        axes.set_title(names[view].partition(" (")[0].replace(", ", ",\n", 1))
        axes.set_xlabel("round")
        round_axis(axes.xaxis)
        percent_axis(axes.yaxis)
    made[0].set_ylabel("accuracy")
    legend_below(figure, made)
    explain(figure, marks, "outside upper center")
    sheets = [_sheet(names[view], methods, view, own) for view, own in found.items()]
    title, alt = "How the accuracy grows with the rounds", _alt(methods, found, marks)
    return [Picture("curves", title, _HOW, alt, figure, sheets)]


def _name(method: Method) -> str:
    """Return a method's name in the legend; the others are tested against a marked one."""
    return f"{name_of(method)}{' (others tested against it)' if method.is_baseline else ''}"


def _marks(panels: Sequence[Axes], methods: Sequence[Method], view: str) -> list[Mark]:
    """Return the marks of a view; in the personal one the trivial model's line is drawn."""
    return averaged(methods) if view == "generic" else trivial(panels, methods, across=True)


def _panels(view: str, methods: Sequence[Method], found: dict[str, Series], name: str) -> Picture:
    kept = [method for method in methods if method.label in found]
    figure, made = grid_of(len(kept))
    generic = view == "generic"
    for axes, method in zip(made, kept, strict=True):
        for other in kept:
            style = BASELINE if other.is_baseline else {"color": BACKDROP.light, "linewidth": 0.8}
            means = [statistics.fmean(values) for values in found[other.label].values()]
            axes.plot(list(found[other.label]), means, **style, zorder=1)
        draw_lines(axes, found[method.label], line_of(0, method, generic=generic))
        axes.set_title(textwrap.fill(name_of(method, generic=generic), 24), fontsize=9)
        round_axis(axes.xaxis)
        percent_axis(axes.yaxis)
    figure.supxlabel("round", fontsize=10)
    figure.supylabel("accuracy; grey: the other methods", fontsize=10)
    marks = [*_marks(made, kept, view), *_baseline_curve(kept)]
    explain(figure, marks, "outside upper center")
    title = f"How the accuracy grows: {name[0].lower()}{name[1:]}"
    alt = _alt(kept, {view: found}, marks)
    sheets = [_sheet(name, methods, view, found)]
    return Picture(f"curves-{view}", title, _HOW, alt, figure, sheets)


def _baseline_curve(methods: Sequence[Method]) -> list[Mark]:
    """Return the mark of the curve, drawn in every panel, that the others are tested against."""
    from matplotlib.lines import Line2D

    names = [method.label for method in methods if method.is_baseline]
    words = [f"{name}: the others are tested against it" for name in names]
    return [Mark(Line2D([], [], **BASELINE), word, f"Dashed line: {word}.") for word in words]


def _sheet(title: str, methods: Sequence[Method], view: str, found: dict[str, Series]) -> Sheet:
    """Return a table of mean and range over seeds, by method and round."""
    rows = [
        [label, str(number), _cell(values, f"{view}/accuracy", method), between(values)]
        for method in methods
        if (label := method.label) in found
        for number, values in found[label].items()
    ]
    return Sheet(title, ["method", "round", "mean %", "lowest to highest seed %"], rows)


def _cell(values: Sequence[float], metric: str, method: Method) -> Cell:
    """Return the cell of the mean over seeds, after the usual mark."""
    mean = share(statistics.fmean(values))
    return Cell(f"{mark(method.results, metric)}{mean.text}", mean.value)


def _alt(
    methods: Sequence[Method], found: dict[str, dict[str, Series]], marks: Sequence[Mark]
) -> str:
    words = []
    for view, series in found.items():
        last = [
            f"{label} {100 * statistics.fmean(s[max(s)]):z.1f} %" for label, s in series.items()
        ]
        words.append(f"{view} model in the last round: {', '.join(last)}")
    return f"Lines of accuracy by round. {'. '.join(words)}.{said(methods, marks)}"
