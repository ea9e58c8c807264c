"""Picture of the price of a round: seconds, and bytes between the server and a client."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from fedlt.comparing.sheet import Cell, Sheet, number, text_of
from fedlt.report.finished import Method
from fedlt.report.marks import name_of, said
from fedlt.report.picture import Picture
from fedlt.report.style import legend_below, new_figure
from fedlt.report.tones import BLUE, FEW, MEDIUM, PAGE

_BARS = (  # heading, unit, fill, hatch
    ("seconds per round", "s", BLUE.light, ""),
    ("to a client", "KiB", MEDIUM.light, "///"),
    ("from a client", "KiB", FEW.light, "xxx"),
)


def price(methods: Sequence[Method]) -> list[Picture]:
    """Return the picture of seconds per round, and KiB down and up per client and round."""
    table = {method.label: _prices(method) for method in methods}
    if not any(any(v is not None for v in row) for row in table.values()):
        return []
    figure = new_figure(1.6 + 0.36 * len(methods))
    left, right = figure.subplots(1, 2, sharey=True)
    for column, (heading, _, color, hatch) in enumerate(_BARS):
        axes, height = (left, 0.7) if column == 0 else (right, 0.36)
        offset = 0.0 if column == 0 else (column - 1.5) * 0.38
        found = [(n + offset, row[column]) for n, row in enumerate(table.values())]
        known = [(place, value) for place, value in found if value is not None]
        style: dict[str, Any] = {
            "color": color,
            "hatch": hatch,
            "edgecolor": PAGE.light,
            "linewidth": 0,
        }
        axes.barh([p for p, _ in known], [v for _, v in known], height, label=heading, **style)
        axes.grid(visible=False, axis="y")
    left.set_title("Seconds per round")
    right.set_title("KiB per client and round")
    legend_below(figure, [right])
    left.set_yticks(range(len(table)), [name_of(method) for method in methods])
    left.set_ylim(len(table) - 0.45, -0.55)
    how = (
        "Time is that of the fastest run, since other work on a machine only adds to it; "
        "evaluations included, divided by its rounds. Compare it only between runs of one machine "
        "and one engine. Bytes are counted, not measured."
    )
    rows = [[label, *(_cell(value) for value in row)] for label, row in table.items()]
    headings = [f"{name}, {unit}" if unit == "KiB" else name for name, unit, *_ in _BARS]
    note = (
        "Seconds of the fastest seed and memory of the smallest, bytes as the mean over seeds. "
        "Once: tensors that never change, sent in the first round. What is not federated sends "
        "nothing."
    )
    columns = ["method", *headings, "once, KiB", "peak memory, MiB"]
    sheet = Sheet("Price of a round", columns, rows, [note])
    words = [
        f"{row[0]} {text_of(row[1])} s, {text_of(row[2])} KiB down, {text_of(row[3])} KiB up"
        for row in rows
    ]
    alt = f"Seconds and KiB per round. {'; '.join(words)}.{said(methods, ())}"
    return [Picture("price", "What a round costs", how, alt, figure, [sheet])]


def _prices(method: Method) -> list[float | None]:
    per_round = [
        s / run.result["rounds"]
        for s, run in zip(method.numbers("seconds"), method.runs, strict=True)
    ]
    keys = ("bytes_down", "bytes_up", "bytes_once")
    sizes = [[] if method.reference else method.numbers(key) for key in keys]
    kib = [[value / 1024 for value in values] for values in sizes]
    traffic = [statistics.fmean(values) if values else None for values in kib]
    peaks = [peak / 2**20 for peak in method.numbers("peak_memory")]
    return [min(per_round, default=None), *traffic, min(peaks, default=None)]


def _cell(value: float | None) -> Cell:
    return number(value, ",.3g" if value is not None and value < 100 else ",.0f")
