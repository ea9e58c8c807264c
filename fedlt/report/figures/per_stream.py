"""Picture of streams (experts, tokens): each stream alone, beside the fused prediction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fedlt.comparing.cells import values
from fedlt.comparing.sheet import Sheet, spread, text_of
from fedlt.comparing.stream_tables import StreamRow, stream_rows
from fedlt.data.shots import GROUPS
from fedlt.report.finished import MOMENT, Method
from fedlt.report.picture import Picture
from fedlt.report.style import GROUP_LOOKS, MARKERS, new_figure, percent_axis, whiskers

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
    figure = new_figure(1.5 + 0.45 * len(rows))
    axes = figure.subplots()
    headings = list(rows[0].metrics)
    drawn = [headings[0], *GROUPS]  # the headline, and the groups
    for number, heading in enumerate(drawn):
        _draw(axes, rows, heading, 0.18 * (number - 1.5))  # four marks below each other
    axes.set_yticks(range(len(rows)), [row.label for row in rows], fontsize=9)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    percent_axis(axes.xaxis)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=4)
    cells: list[list[object]] = [
        [row.label, *(spread(values(row.runs, MOMENT, name)) for name in row.metrics.values())]
        for row in rows
    ]
    note = "In %, mean ± 95 % interval over seeds. Only the fused prediction is in a verdict."
    sheet = Sheet("Accuracy by stream", ["stream", *headings], cells, [note])
    many, few = headings.index("many") + 1, headings.index("few") + 1
    words = [f"{row[0]} many {text_of(row[many])}, few {text_of(row[few])}" for row in cells]
    alt = f"Accuracy in per cent of every stream alone: {'; '.join(words)}."
    title = "Experts and tokens: every stream alone"
    return [Picture("streams", title, _HOW, alt, figure, [sheet])]


def _draw(axes: Axes, rows: Sequence[StreamRow], heading: str, shift: float) -> None:
    """Draw one class group of every row: a mark, and a whisker for several seeds."""
    found = [values(row.runs, MOMENT, row.metrics[heading]) for row in rows]
    places = [place + shift for place, own in enumerate(found) if own]
    known = [own for own in found if own]
    if not known:
        return
    group = heading if heading in GROUPS else "all"
    means, errors = whiskers(known)
    axes.errorbar(
        means,
        places,
        xerr=errors,
        fmt=MARKERS[group],
        color=GROUP_LOOKS[group][0],
        markeredgecolor="black",
        markersize=6,
        elinewidth=0.8,
        label="all classes" if group == "all" else group,
    )
