"""Pictures of the models' diagnostics over rounds, and of class vectors per head."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fedlt.comparing.sheet import Sheet, number, text_of
from fedlt.data.shots import GROUPS
from fedlt.evaluation.generic import mean
from fedlt.evaluation.metrics import by_heading, heading_of
from fedlt.report.figures.curves import Series, by_round, draw_lines
from fedlt.report.finished import Method
from fedlt.report.marks import averaged, explain, line_of, name_of, said
from fedlt.report.picture import Picture
from fedlt.report.style import (
    GROUP_LOOKS,
    LOOKS,
    MARKERS,
    legend_below,
    new_figure,
    round_axis,
)
from fedlt.report.tones import INK, PAGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PREFIX = "diagnostics/"
_SHOWN = (
    "nc1", "nc2_norm", "nc2_angle", "nc3", "nc4", "drift_norm", "drift_spread", "tail_gradient",
    "agreement",
)  # fmt: skip
_MORE = by_heading(
    *(f"{_PREFIX}<head>/{word}" for word in ("norm_log_count", "angle_mean", "angle_std")),
    *(f"{_PREFIX}<head>/{word}" for word in ("pruned", "pruned_share")),
)
_HOW = (
    "Nothing here is a score. NC1 to NC4 fall towards 0 as features collapse onto their class "
    "means, which long-tailed training undoes for rare classes first. The table has every value."
)


def diagnostics(methods: Sequence[Method]) -> list[Picture]:
    """Return the pictures of all diagnostics over rounds, or in the last round for many methods."""
    found = {
        metric: {m.label: s for m in methods if (s := by_round(m, f"{_PREFIX}{metric}"))}
        for metric in _SHOWN
    }
    found = {metric: series for metric, series in found.items() if series}
    if not found:
        return []
    many = len(methods) > len(LOOKS)
    columns = min(3, len(found))
    height = 0.2 * len(methods) + 1.0 if many else 2.3
    figure = new_figure(height * -(-len(found) // columns) + 1.0)
    made = list(figure.subplots(-(-len(found) // columns), columns, squeeze=False).flat)
    for axes, (metric, series) in zip(made, found.items(), strict=False):
        draw = _draw_last if many else _draw_rounds
        draw(axes, methods, series, is_generic=metric.startswith("nc"))
        axes.set_title(heading_of(f"{_PREFIX}{metric}"), fontsize=9)
    for spare in made[len(found) :]:
        spare.remove()
    if not many:
        legend_below(figure, made[: len(found)])
    shown = [m for m in methods if any(m.label in series for series in found.values())]
    marks = averaged(shown)
    explain(figure, marks, "outside upper center")
    sheet = _sheet(found)
    names = ", ".join(method.label for method in shown)
    alt = f"Panels of {', '.join(found)} by round for {names}; the table has the values."
    alt += said(shown, marks)
    title = "Inside the models: diagnostics over the rounds"
    return [Picture("diagnostics", title, _HOW, alt, figure, [sheet])]


def _draw_rounds(
    axes: Axes, methods: Sequence[Method], series: dict[str, Series], *, is_generic: bool
) -> None:
    """Draw a diagnostic over the rounds; ``is_generic``: it is measured on the generic model."""
    for position, method in enumerate(methods):
        if method.label in series:
            style = line_of(position, method, generic=is_generic)
            draw_lines(axes, series[method.label], style, name_of(method))
    round_axis(axes.xaxis)
    axes.set_xlabel("round", fontsize=8)


def _draw_last(
    axes: Axes, methods: Sequence[Method], series: dict[str, Series], *, is_generic: bool
) -> None:
    """Draw a diagnostic in the last round; ``is_generic``: it is measured on the generic model."""
    known = [method for method in methods if method.label in series]
    for place, method in enumerate(known):
        own = series[method.label]
        style = line_of(0, method, generic=is_generic) | {"linestyle": "none"}
        axes.plot(statistics.fmean(own[max(own)]), place, **style)
    axes.set_yticks(range(len(known)), [name_of(method) for method in known], fontsize=7)
    axes.set_ylim(len(known) - 0.4, -0.6)


def _sheet(found: dict[str, dict[str, Series]]) -> Sheet:
    places: dict[str, set[int]] = {}
    for series in found.values():
        for label, rounds in series.items():
            places.setdefault(label, set()).update(rounds)
    rows: list[list[object]] = []
    for label, round_ in ((name, r) for name, all_ in places.items() for r in sorted(all_)):
        cells = [
            number(mean(series.get(label, {}).get(round_, ())), ".3g") for series in found.values()
        ]
        rows.append([label, str(round_), *cells])
    note = "Mean over the seeds; docs/metrics.md defines them."
    return Sheet("Diagnostics", ["method", "round", *found], rows, [note])


def class_vectors(methods: Sequence[Method]) -> list[Picture]:
    """Return the pictures of class vectors' norm and nearest angle, by head and class group."""
    rows = [(m.label, head, m) for m in methods for head in _heads(m)]
    if not rows:
        return []
    figure = new_figure(2.1 + 0.32 * len(rows))
    left, right = figure.subplots(1, 2, sharey=True)
    table: list[list[object]] = []
    for place, (label, head, method) in enumerate(rows):
        cells: list[object] = [f"{label}: {head}"]
        for axes, word in ((left, "norm"), (right, "angle")):
            for group in GROUPS:
                value = _last(method, f"{_PREFIX}{head}/{word}_{group}")
                cells.append(number(value, ".3g"))
                if value is not None:
                    axes.plot(value, place, **_point(group, hollow=method.is_average))
        cells += [number(_last(method, n.replace("<head>", head)), ".3g") for n in _MORE.values()]
        table.append(cells)
    left.set_title("Length of the class vectors")
    right.set_title("Angle to the nearest other class, degrees")
    names = [f"{name_of(method, generic=True)}: {head}" for _, head, method in rows]
    left.set_yticks(range(len(rows)), names, fontsize=9)
    left.set_ylim(len(rows) - 0.4, -0.6)
    for group in GROUPS:
        left.plot([], [], label=group, **_point(group, hollow=False))
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    marks = averaged([method for _, _, method in rows])
    explain(figure, marks)
    headings = [f"{word} {group}" for word in ("norm", "angle") for group in GROUPS]
    note = "Last round with diagnostics, mean over the seeds."
    sheet = Sheet("Class vectors", ["head", *headings, *_MORE], table, [note])
    how = (
        "A head favours classes whose vectors are long. A balanced head has its three marks close "
        "together; a long-tailed one has short vectors for rare classes."
    )
    words = [f"{row[0]} many {text_of(row[1])}, few {text_of(row[3])}" for row in table]
    alt = f"Mean length of class vectors by class group: {'; '.join(words)}."
    alt += said([method for _, _, method in rows], marks)
    return [Picture("class-vectors", "Class vectors of every head", how, alt, figure, [sheet])]


def _point(group: str, *, hollow: bool) -> dict[str, Any]:
    """Return the arguments of ``Axes.plot`` for a mark of a class group."""
    color = GROUP_LOOKS[group][0]
    inside, edge = (PAGE.light, color) if hollow else (color, INK.light)
    style = {"marker": MARKERS[group], "linestyle": "none", "color": color}
    return {**style, "markerfacecolor": inside, "markeredgecolor": edge}


def _heads(method: Method) -> list[str]:
    """Return the heads whose class vectors were measured, in order."""
    end = "/angle_mean"
    names = dict.fromkeys(name for run in method.runs for row in run.rounds for name in row)
    return [n[len(_PREFIX) : -len(end)] for n in names if n.startswith(_PREFIX) and n.endswith(end)]


def _last(method: Method, metric: str) -> float | None:
    series = by_round(method, metric)
    return mean(series[max(series)]) if series else None
