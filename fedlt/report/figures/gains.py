"""Pictures of the gain by personal models: by client size, and for owners of rare classes."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fedlt.comparing.cells import mark
from fedlt.comparing.sheet import Cell, Sheet, number, share, spread, text_of
from fedlt.comparing.statistics import interval
from fedlt.evaluation.metrics import by_heading, heading_of
from fedlt.evaluation.personal_metrics import ROUNDING
from fedlt.report.figures.per_client import clients_of, with_clients
from fedlt.report.finished import MOMENT, Method
from fedlt.report.marks import Mark, averaged, explain, name_of, said
from fedlt.report.picture import Picture
from fedlt.report.style import grid_of, legend_below, new_figure, points_axis
from fedlt.report.tones import BLUE, FEW, INK, PAGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_OWNERS: tuple[dict[str, Any], dict[str, Any]] = (  # owners of rare classes, and other clients
    {
        "marker": "^",
        "facecolor": FEW.light,
        "edgecolor": INK.light,
        "label": "holds rare classes",
    },
    {"marker": "o", "facecolor": PAGE.light, "edgecolor": BLUE.light, "label": "holds none"},
)
_ZERO = "the generic model"  # line of no gain
_KINDS = by_heading("personal/gain_few_owners", "personal/gain_others")
_BY_OWNER = (
    "Gain is the accuracy of a client's own model minus the generic model's, on the client's own "
    "classes. Left of the line the clients would be better off without personal models."
)
_BY_SIZE = (
    "Above the line a client is better served by its own model than by the generic one, below it "
    "is worse served. Methods whose personal models are the generic one are left out."
)


def gain_by_size(methods: Sequence[Method]) -> list[Picture]:
    """Return the picture of clients' gain over the generic model by size, a panel per method."""
    known = [m for _, m in with_clients(methods) if _has_gains(m)]
    if not known:
        return []
    figure, made = grid_of(len(known), columns=min(4, len(known)), height=2.6)
    rows: list[list[object]] = []
    for axes, method in zip(made, known, strict=True):
        rows += _draw_sizes(axes, method)
    figure.supxlabel("training images of the client (log scale)", fontsize=10)
    figure.supylabel("gain, percentage points", fontsize=10)
    marks = averaged(known, tilde=True)
    explain(figure, [*_entries(made), *marks], "outside upper center")  # below is the axis' name
    headings = ["method", "clients by size", "images", "mean gain", "worse off", "clients"]
    note = "In percentage points, over all clients of all seeds, last round."
    words = [f"{r[0]}, {r[1]} third: {text_of(r[3])}" for r in rows]
    alt = f"Gain by client size in percentage points. {'; '.join(words)}.{said(known, marks)}"
    title = "Who gains from a model of its own: small clients or large ones?"
    sheets = [Sheet("Gain by client size", headings, rows, [note])]
    return [Picture("gain-by-size", title, _BY_SIZE, alt, figure, sheets)]


def _entries(panels: Sequence[Axes]) -> list[Mark]:
    """Return the entries of the panels' legend."""
    pairs = (zip(*axes.get_legend_handles_labels(), strict=True) for axes in panels)
    return [Mark(handle, label, "") for own in pairs for handle, label in own]


def _has_gains(method: Method) -> bool:
    gains = [clients_of(run).gain for run in method.runs]
    return all(gain is not None for gain in gains) and any(np.any(gain) for gain in gains)


def _draw_sizes(axes: Axes, method: Method) -> list[list[object]]:
    """Draw a method's clients and return the rows of the table for them."""
    from matplotlib.ticker import LogFormatter

    figures = [clients_of(run) for run in method.runs]
    sizes = np.concatenate([one.sizes for one in figures])
    gains = np.concatenate([np.asarray(one.gain) for one in figures])
    known = [one.owns_few for one in figures if one.owns_few is not None]
    if len(known) == len(figures):
        owns = np.concatenate(known)
        for mask, style in zip((owns, ~owns), _OWNERS, strict=True):
            if mask.any():
                axes.scatter(sizes[mask], gains[mask], s=22, linewidths=0.8, **style)
    else:  # no class groups: no client owns a rare class
        style = {**_OWNERS[1], "label": "client"}
        axes.scatter(sizes, gains, s=22, linewidths=0.8, **style)
    axes.axhline(0, color=INK.light, linewidth=1, label=_ZERO)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(LogFormatter())  # 20, 30 and so on where there is room
    axes.set_title(textwrap.fill(name_of(method, generic=True), 24), fontsize=9)
    points_axis(axes.yaxis)
    return _size_rows(method, sizes, gains)


def _size_rows(method: Method, sizes: np.ndarray, gains: np.ndarray) -> list[list[object]]:
    """Return the table rows of the smallest, middle and largest third of the clients."""
    rows: list[list[object]] = []
    parts = np.array_split(np.argsort(sizes, kind="stable"), min(3, sizes.size))
    names = ("smallest", "middle", "largest") if len(parts) == 3 else ("smallest", "largest")
    for name, part in zip(names, parts, strict=False):
        worse = float((gains[part] < -ROUNDING).mean())
        span = f"{sizes[part].min()} to {sizes[part].max()}"
        gain = share(float(gains[part].mean()), signed=True)
        cells = (_marked(cell, method, "personal/gain") for cell in (gain, share(worse)))
        rows.append([method.label, name, span, *cells, number(part.size, "")])
    return rows


def _marked(cell: Cell, method: Method, metric: str) -> Cell:
    """Return a cell with the usual mark of a metric before its text."""
    return Cell(f"{mark(method.results, metric)}{cell.text}", cell.value)


def tail_owners(methods: Sequence[Method]) -> list[Picture]:
    """Return the picture of the gain of clients with rare classes beside other clients' gain."""
    which = MOMENT
    known = [m for m in methods if any(any(m.known(metric, which)) for metric in _KINDS.values())]
    if not known:
        return []
    figure = new_figure(2.0 + 0.36 * len(known))
    axes = figure.subplots()
    _draw_owners(axes, known, which)
    legend_below(figure, [axes])
    marks = averaged(known, tilde=True)
    explain(figure, marks, "outside upper center")
    rows = [
        [
            m.label,
            *(
                spread(m.known(metric, which), signed=True, mark=mark(m.results, metric))
                for metric in _KINDS.values()
            ),
            _owners(m, which),
        ]
        for m in known
    ]
    note = "In percentage points, mean ± 95 % interval over the seeds that have such clients."
    columns = ["method", *_KINDS, heading_of("personal/few_owners")]
    sheets = [Sheet("Gain by rare classes", columns, rows, [note])]
    words = [f"{row[0]} {text_of(row[1])} and {text_of(row[2])}" for row in rows]
    alt = f"Mean gain of clients that hold rare classes and of the others: {'; '.join(words)}."
    alt += said(known, marks)
    title = "Do the owners of rare classes gain or pay?"
    return [Picture("tail-owners", title, _BY_OWNER, alt, figure, sheets)]


def _draw_owners(axes: Axes, methods: Sequence[Method], which: str) -> None:
    for (label, metric), style, shift in zip(_KINDS.items(), _OWNERS, (-0.13, 0.13), strict=True):
        found = [(row + shift, m.known(metric, which)) for row, m in enumerate(methods)]
        rows = [row for row, values in found if values]
        means = [statistics.fmean(values) for _, values in found if values]
        widths = [interval(values).half or 0.0 for _, values in found if values]
        axes.errorbar(
            means,
            rows,
            xerr=widths,
            fmt=style["marker"],
            color=style["edgecolor"],
            markerfacecolor=style["facecolor"],
            markersize=7,
            elinewidth=1,
            label=f"clients that {label}",
        )
    axes.axvline(0, color=INK.light, linewidth=1, label=_ZERO)
    axes.set_yticks(range(len(methods)), [name_of(m, generic=True) for m in methods])
    axes.set_ylim(len(methods) - 0.4, -0.6)
    points_axis(axes.xaxis)
    axes.set_xlabel("mean gain over the generic model, percentage points")


def _owners(method: Method, which: str) -> Cell:
    values = method.values("personal/few_owners", which)
    return number(statistics.fmean(values) if values else None, ".3g")
