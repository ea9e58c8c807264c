"""Picture of accuracy over all, many, medium and few classes: bars, or points for many methods."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fedlt.comparing.sheet import Sheet, share, spread
from fedlt.report.finished import MOMENT, Method
from fedlt.report.picture import Picture
from fedlt.report.style import GROUP_LOOKS, MARKERS, new_figure, percent_axis, whiskers

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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
    figure = new_figure(1.7 + height * len(methods))
    made = figure.subplots(1, len(views), sharey=True, squeeze=False)[0]
    for axes, (view, metrics) in zip(made, views.items(), strict=True):
        for row, metric in enumerate(metrics):
            shift = (row - (bars - 1) / 2) / (bars + 1)
            _draw(axes, methods, f"{view}/{metric}", which, shift, 0.9 / (bars + 1), are_bars)
        axes.set_title(f"{view.capitalize()} model{'s' if view == 'personal' else ''}")
        axes.grid(visible=not are_bars, axis="y")
        percent_axis(axes.xaxis)
    made[0].set_yticks(range(len(methods)), [method.label for method in methods])
    made[0].set_ylim(len(methods) - 0.45, -0.55)
    figure.legend(*made[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    sheets = [groups_sheet(methods, views, which)]
    alt = _alt(methods, views, which)
    how = _HOW.format("Accuracy" if methods[0].scored_on.balanced else "Mean recall")
    return [Picture("groups", "Frequent and rare classes", how, alt, figure, sheets)]


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
    which: str,
    shift: float,
    height: float,
    are_bars: bool,
) -> None:
    """Draw one class group of every method: bars below each other, or points in a row."""
    word = metric.rpartition("/")[2]
    group = word if word in MARKERS else "all"
    color, hatch = GROUP_LOOKS[group]
    values = [method.values(metric, which) for method in methods]
    places = [place + shift for place, one in enumerate(values) if one]
    means, errors = whiskers([one for one in values if one])
    label = "all classes" if group == "all" else group
    if are_bars:
        style: dict[str, Any] = {"color": color, "hatch": hatch, "edgecolor": "white"}
        axes.barh(places, means, height=height, linewidth=0, label=label, **style)
        if any(map(any, errors)):
            axes.errorbar(means, places, xerr=errors, fmt="none", ecolor="black", lw=0.8)
        return
    style = {"fmt": MARKERS[group], "color": color, "markeredgecolor": "black"}
    axes.errorbar(means, places, xerr=errors, label=label, markersize=6, elinewidth=0.8, **style)


def groups_sheet(
    methods: Sequence[Method], views: Mapping[str, Sequence[str]], which: str
) -> Sheet:
    """Return a table of accuracy, overall and by class group, in the given views."""
    metrics = [f"{view}/{metric}" for view, words in views.items() for metric in words]
    rows = [[m.label, *(spread(m.values(metric, which)) for metric in metrics)] for m in methods]
    headings = [metric.replace("/accuracy", " all").replace("/", " ") for metric in metrics]
    note = "In %, mean ± 95 % interval over seeds."
    return Sheet("Accuracy by class group", ["method", *headings], rows, [note])


def _alt(methods: Sequence[Method], views: Mapping[str, Any], which: str) -> str:
    words = []
    for view in views:
        figures = {m.label: m.values(f"{view}/few", which) for m in methods}
        known = [f"{n} {share(statistics.fmean(v)).text} %" for n, v in figures.items() if v]
        if known:
            words.append(f"{view} accuracy on rare classes: {', '.join(known)}")
    return f"Bars by method and class group. {'. '.join(words)}."
