"""Picture of streams (experts, tokens): each stream alone, beside the fused prediction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fedlt.comparing.cells import AVERAGE, is_average, mark, values
from fedlt.comparing.sheet import Sheet, spread, text_of
from fedlt.comparing.stream_tables import StreamRow, stream_rows
from fedlt.data.shots import GROUPS
from fedlt.report.finished import MOMENT, Method
from fedlt.report.marks import averaged, explain, said
from fedlt.report.picture import Picture
from fedlt.report.style import GROUP_LOOKS, MARKERS, new_figure, percent_axis, whiskers
from fedlt.report.tones import INK, PAGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_HOW = (
    "A model with several streams (experts, tokens) predicts by their fusion. That is what counts: "
    "no stream is tested against another method. Streams that divide the classes among themselves "
    "have their marks far apart: one is the best on frequent classes, another on rare ones."
)


def stream_accuracy(methods: Sequence[Method]) -> list[Picture]:
    """Return the picture of accuracy by class group: fused prediction, then a row per stream."""
    rows = stream_rows({method.label: method.results for method in methods}, MOMENT)
    if not rows:
        return []
    figure = new_figure(1.8 + 0.45 * len(rows))
    axes = figure.subplots()
    headings = list(rows[0].metrics)
    drawn = [headings[0], *GROUPS]  # the headline, and the groups
    for number, heading in enumerate(drawn):
        _draw(axes, rows, heading, 0.18 * (number - 1.5))  # four marks below each other
    axes.set_yticks(range(len(rows)), list(map(_name, rows)), fontsize=9)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    percent_axis(axes.xaxis)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=4)
    cells: list[list[object]] = [
        [
            row.label,
            *(
                spread(values(row.runs, MOMENT, name), mark=mark(row.runs, name))
                for name in row.metrics.values()
            ),
        ]
        for row in rows
    ]
    drawn_methods = [m for m in methods if any(row.method == m.label for row in rows)]
    marks = averaged(drawn_methods)
    explain(figure, marks)
    note = "In %, mean ± 95 % interval over seeds. Only the fused prediction is in a verdict."
    sheet = Sheet("Accuracy by stream", ["stream", *headings], cells, [note])
    many, few = headings.index("many") + 1, headings.index("few") + 1
    words = [f"{row[0]} many {text_of(row[many])}, few {text_of(row[few])}" for row in cells]
    alt = f"Accuracy in per cent of every stream alone: {'; '.join(words)}."
    alt += said(drawn_methods, marks)
    title = "Experts and tokens: every stream alone"
    return [Picture("streams", title, _HOW, alt, figure, [sheet])]


def _name(row: StreamRow) -> str:
    """Return a row's label, after ``~`` for an averaged generic model."""
    return f"{AVERAGE} {row.label}" if is_average(row.runs) else row.label


def _draw(axes: Axes, rows: Sequence[StreamRow], heading: str, shift: float) -> None:
    """Draw one class group of every row: a mark, and a whisker for several seeds."""
    group = heading if heading in GROUPS else "all"
    color, name = GROUP_LOOKS[group][0], "all classes" if group == "all" else group
    style: dict[str, Any] = {
        "color": color,
        "fmt": MARKERS[group],
        "markersize": 6,
        "elinewidth": 0.8,
    }
    for place, row in enumerate(rows):
        found = values(row.runs, MOMENT, row.metrics[heading])
        if found:
            means, errors = whiskers([found])
            inside, edge = (PAGE.light, color) if is_average(row.runs) else (color, INK.light)
            face: dict[str, Any] = {"markerfacecolor": inside, "markeredgecolor": edge}
            axes.errorbar(means, [place + shift], xerr=errors, **style, **face)
    axes.plot([], [], ls="", marker=MARKERS[group], c=color, mec=INK.light, label=name)
