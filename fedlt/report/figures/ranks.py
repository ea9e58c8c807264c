"""Picture of the number of directions that features spread over, by block and stream."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence

from fedlt.comparing.sheet import Sheet, share
from fedlt.evaluation.rank import DIRECTIONS
from fedlt.report.figures.curves import by_round
from fedlt.report.finished import Method
from fedlt.report.marks import averaged, explain, line_of, name_of, said
from fedlt.report.picture import Picture
from fedlt.report.style import legend_below, new_figure, percent_axis

_NAME = re.compile(r"diagnostics/block_(\d+)/(\w+)/variance_(\d+)")
_DRAWN = 5  # directions whose share the picture shows
_HOW = (
    f"The share of the features' variance that lies in their first {_DRAWN} principal directions, "
    "block by block, over training images. Near 100 % the features use few directions: their rank "
    "is low. Nothing here is a score."
)

VarianceShares = dict[tuple[str, str], dict[int, dict[int, float]]]  # method, stream -> block -> d


def token_ranks(methods: Sequence[Method]) -> list[Picture]:
    """Return the picture of variance shares by block, in the last diagnosed round, by stream."""
    found = _shares(methods)
    if not found:
        return []
    streams = list(dict.fromkeys(stream for _, stream in found))
    places = {method.label: (place, method) for place, method in enumerate(methods)}
    figure = new_figure(3.9)
    made = figure.subplots(1, len(streams), sharey=True, squeeze=False)[0]
    for axes, stream in zip(made, streams, strict=True):
        for (label, own), blocks in found.items():
            if own == stream:
                line = [by_d[_DRAWN] for by_d in blocks.values()]
                place, method = places[label]
                style = line_of(place, method, generic=True)
                axes.plot(list(blocks), line, label=name_of(method), **style)
        axes.set_title(stream, fontsize=10)
        axes.set_xlabel("block")
        axes.set_xticks(sorted({b for own in found.values() for b in own}))
        percent_axis(axes.yaxis)
    legend_below(figure, made)
    shown = [places[label][1] for label in dict.fromkeys(label for label, _ in found)]
    marks = averaged(shown)
    explain(figure, marks, "outside upper center")
    rows = [
        [label, stream, str(block), *(share(by_d.get(d)) for d in DIRECTIONS)]
        for (label, stream), blocks in found.items()
        for block, by_d in blocks.items()
    ]
    headings = [f"first {d} %" if d > 1 else "first %" for d in DIRECTIONS]
    note = "Last round with diagnostics, mean over the seeds; docs/metrics.md defines them."
    columns = ["method", "stream", "block", *headings]
    sheet = Sheet("Variance by block", columns, rows, [note])
    last = [
        f"{label} {own} {share(blocks[max(blocks)][_DRAWN]).text} %"
        for (label, own), blocks in found.items()
    ]
    alt = f"Lines of that share by block; in the last block: {', '.join(last)}."
    alt += said(shown, marks)
    title = "How many directions the features of every block use"
    return [Picture("ranks", title, _HOW, alt, figure, [sheet])]


def _shares(methods: Sequence[Method]) -> VarianceShares:
    """Return the variance shares, means over seeds, in each method's last diagnosed round."""
    found: VarianceShares = {}
    for method in methods:
        names = dict.fromkeys(name for run in method.runs for row in run.rounds for name in row)
        for match in filter(None, map(_NAME.fullmatch, names)):
            series = by_round(method, match[0])
            if series:
                blocks = found.setdefault((method.label, match[2]), {})
                mean = statistics.fmean(series[max(series)])
                blocks.setdefault(int(match[1]), {})[int(match[3])] = mean
    return found
