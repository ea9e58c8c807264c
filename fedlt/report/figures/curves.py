"""Pictures of metrics over rounds: mean over seeds as a line, range of seeds as a band."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from fedlt.comparing.sheet import Cell, Sheet, between, share
from fedlt.report.finished import Method
from fedlt.report.picture import Picture
from fedlt.report.style import (
    LOOKS,
    grid_of,
    legend_below,
    look,
    new_figure,
    percent_axis,
    round_axis,
)

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
    figure = new_figure(4.6 + 0.25 * -(-len(methods) // 5))
    made = figure.subplots(1, len(found), squeeze=False)[0]
    for axes, view in zip(made, found, strict=True):
        for position, method in enumerate(methods):
            if method.label in found[view]:
                draw_lines(axes, found[view][method.label], look(position).line_of(), method.label)
        axes.set_title(names[view].partition(" (")[0].replace(", ", ",\n", 1))
        axes.set_xlabel("round")
        round_axis(axes.xaxis)
        percent_axis(axes.yaxis)
    made[0].set_ylabel("accuracy")
    legend_below(figure, made)
    sheets = [rounds_sheet(names[view], own, share) for view, own in found.items()]
    return [_picture("curves", "How the accuracy grows with the rounds", figure, found, sheets)]


def _panels(view: str, methods: Sequence[Method], found: dict[str, Series], name: str) -> Picture:
    kept = [method.label for method in methods if method.label in found]
    figure, made = grid_of(len(kept))
    for axes, label in zip(made, kept, strict=True):
        for other in kept:
            means = [statistics.fmean(values) for values in found[other].values()]
            axes.plot(list(found[other]), means, color="0.85", linewidth=0.8, zorder=1)
        draw_lines(axes, found[label], look(0).line_of())
        axes.set_title(textwrap.fill(label, 24), fontsize=9)
        round_axis(axes.xaxis)
        percent_axis(axes.yaxis)
    figure.supxlabel("round", fontsize=10)
    figure.supylabel("accuracy; grey: the other methods", fontsize=10)
    title = f"How the accuracy grows: {name[0].lower()}{name[1:]}"
    sheets = [rounds_sheet(name, found, share)]
    return _picture(f"curves-{view}", title, figure, {view: found}, sheets)


def rounds_sheet(title: str, found: dict[str, Series], cell: Callable[[float], Cell]) -> Sheet:
    """Return a table of mean and range over seeds, by method and round."""
    rows = [
        [label, str(number), cell(statistics.fmean(values)), between(values)]
        for label, series in found.items()
        for number, values in series.items()
    ]
    return Sheet(title, ["method", "round", "mean %", "lowest to highest seed %"], rows)


def _picture(
    slug: str,
    title: str,
    figure: Any,  # noqa: ANN401 (a matplotlib figure)
    found: dict[str, dict[str, Series]],
    sheets: list[Sheet],
) -> Picture:
    words = []
    for view, series in found.items():
        last = [
            f"{label} {100 * statistics.fmean(s[max(s)]):z.1f} %" for label, s in series.items()
        ]
        words.append(f"{view} model in the last round: {', '.join(last)}")
    return Picture(
        slug, title, _HOW, f"Lines of accuracy by round. {'. '.join(words)}.", figure, sheets
    )
