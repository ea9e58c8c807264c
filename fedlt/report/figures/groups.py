"""Picture of accuracy over all, many, medium and few classes: bars, or points for many methods."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fedlt.comparing.cells import mark
from fedlt.comparing.sheet import Cell, Sheet, percent, spread
from fedlt.report.finished import MOMENT, Method
from fedlt.report.marks import Mark, averaged, baseline, explain, name_of, said, trivial
from fedlt.report.picture import Picture
from fedlt.report.style import (
    GROUP_LOOKS,
    MARKERS,
    new_figure,
    outer_legend,
    percent_axis,
    whiskers,
)
from fedlt.report.tones import INK, PAGE

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BARS = 12  # most methods with bars; more methods get a row of points each


def group_bars(methods: Sequence[Method]) -> list[Picture]:
    """Return the picture of accuracy by class group in both views, a row of bars per method."""
    which = MOMENT
    names = _groups(methods, which)
    views = {
        view: [metric.rpartition("/")[2], *names]
        for view, metric in methods[0].scored_on.headlines.items()
        if _has(methods, metric, which)
    }
    if not views:
        return []
    bars, are_bars = 1 + len(names), len(methods) <= _BARS
    height = 0.17 * bars + 0.12 if are_bars else 0.3
    figure = new_figure(2.2 + height * len(methods))
    made = figure.subplots(1, len(views), sharey=True, squeeze=False)[0]
    marks: list[Mark] = []
    for axes, (view, metrics) in zip(made, views.items(), strict=True):
        for row, metric in enumerate(metrics):
            shift = (row - (bars - 1) / 2) / (bars + 1)
            _draw(axes, methods, f"{view}/{metric}", shift, 0.9 / (bars + 1), are_bars)
        axes.set_title(f"{view.capitalize()} model{'s' if view == 'personal' else ''}")
        axes.grid(visible=not are_bars, axis="y")
        percent_axis(axes.xaxis)
        marks += _lines(axes, methods, view, metrics[0])
    made[0].set_yticks(range(len(methods)), [name_of(method) for method in methods])
    made[0].set_ylim(len(methods) - 0.45, -0.55)
    _legend(figure, ["all", *names], are_bars)
    explain(figure, marks)
    sheets = [groups_sheet(methods, views, which)]
    alt = f"{_alt(methods, views)}{said(methods, marks)}"
    how = _HOW.format("Accuracy" if methods[0].scored_on.balanced else "Mean recall")
    return [Picture("groups", "Frequent and rare classes", how, alt, figure, sheets)]


def _lines(axes: Axes, methods: Sequence[Method], view: str, headline: str) -> list[Mark]:
    """Draw the lines of a view to compare with; return the marks of the view."""
    own = (
        averaged(methods, marker="s")
        if view == "generic"
        else trivial([axes], methods, across=False)
    )
    metric = f"{view}/{headline}"
    return own + baseline([axes], methods, metric, "all classes", across=False)


_HOW = (
    "{} over all classes and over the frequent (many), middle (medium) and rare (few) classes. "
    "Whiskers are 95 % intervals of the mean over seeds; overlapping ones do not settle which "
    "method is better."
)


def _groups(methods: Sequence[Method], which: str) -> list[str]:
    """Return the class groups for which a method has numbers."""
    views = ("generic", "personal")
    return [
        group
        for group in ("many", "medium", "few")
        if any(_has(methods, f"{view}/{group}", which) for view in views)
    ]


def _has(methods: Sequence[Method], metric: str, which: str) -> bool:
    return any(method.values(metric, which) for method in methods)


def _draw(
    axes: Axes,
    methods: Sequence[Method],
    metric: str,
    shift: float,
    height: float,
    are_bars: bool,
) -> None:
    """Draw one class group of every method: bars below each other, or points in a row."""
    word = metric.rpartition("/")[2]
    style = _style(word if word in MARKERS else "all", are_bars)
    for place, method in enumerate(methods):
        values = method.values(metric, MOMENT)
        if not values:
            continue
        own = style | _inside(style, hollow=bool(mark(method.results, metric)))
        means, errors = whiskers([values])
        if are_bars:
            axes.barh([place + shift], means, height=height, **own)
            if any(map(any, errors)):
                whisker: dict[str, Any] = {"fmt": "none", "ecolor": INK.light, "lw": 0.8}
                axes.errorbar(means, [place + shift], xerr=errors, **whisker)
        else:
            axes.errorbar(means, [place + shift], xerr=errors, elinewidth=0.8, **own)


def _style(group: str, are_bars: bool) -> dict[str, Any]:
    """Return the arguments of ``Axes.barh`` or ``Axes.errorbar`` for a class group."""
    color, hatch = GROUP_LOOKS[group]
    if are_bars:
        return {"facecolor": color, "hatch": hatch, "edgecolor": PAGE.light, "linewidth": 0}
    point = {"fmt": MARKERS[group], "color": color, "markersize": 6}
    return {**point, "markerfacecolor": color, "markeredgecolor": INK.light}


def _inside(style: Mapping[str, Any], *, hollow: bool) -> dict[str, Any]:
    """Return the arguments that make a bar or a point hollow."""
    if not hollow:
        return {}
    if "facecolor" in style:
        return {"facecolor": PAGE.light, "edgecolor": style["facecolor"], "linewidth": 1.2}
    return {"markerfacecolor": PAGE.light, "markeredgecolor": style["color"]}


def _legend(figure: Figure, groups: Sequence[str], are_bars: bool) -> None:
    """Draw the legend of the class groups above the panels, all filled."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    names = ["all classes" if group == "all" else group for group in groups]
    styles = [_style(group, are_bars) for group in groups]
    if are_bars:
        handles: list[Artist] = [Patch(**style) for style in styles]
    else:
        points = [dict(style) for style in styles]
        handles = [Line2D([], [], ls="", marker=one.pop("fmt"), **one) for one in points]
    outer_legend(figure, handles, names, "outside upper center")


def groups_sheet(
    methods: Sequence[Method], views: Mapping[str, Sequence[str]], which: str
) -> Sheet:
    """Return a table of accuracy, overall and by class group, in the given views."""
    metrics = [f"{view}/{metric}" for view, words in views.items() for metric in words]
    rows = [[m.label, *(_cell(m, metric, which) for metric in metrics)] for m in methods]
    headings = [metric.replace("/accuracy", " all").replace("/", " ") for metric in metrics]
    note = "In %, mean ± 95 % interval over seeds."
    return Sheet("Accuracy by class group", ["method", *headings], rows, [note])


def _cell(method: Method, metric: str, which: str) -> Cell:
    return spread(method.values(metric, which), mark=mark(method.results, metric))


def _alt(methods: Sequence[Method], views: Mapping[str, Any]) -> str:
    words = []
    for view in views:
        metric = f"{view}/few"
        known = [
            f"{method.label} {mark(method.results, metric)}{percent(statistics.fmean(values))} %"
            for method in methods
            if (values := method.values(metric, MOMENT))
        ]
        if known:
            words.append(f"{view} accuracy on rare classes: {', '.join(known)}")
    return f"Bars by method and class group. {'. '.join(words)}."
