"""The clients: what each holds, how well its own model serves it, and who gains by having one."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fedlt.report.figures.groups import which_of
from fedlt.report.partition_plot import PartitionView, draw_heat
from fedlt.report.picture import Cell, Picture, Sheet, half_width, share, spread
from fedlt.report.records import ClientFigures, Method, RunRecord
from fedlt.report.style import LOOKS, grid_of, look, new_figure, percent_axis, points_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["client_distribution", "gain_by_size", "partition_and_accuracy", "tail_owners"]

_MOST_ROWS = 500  # of a table of clients


def _known(methods: Sequence[Method]) -> list[tuple[int, Method]]:
    """Return the methods whose runs have clients' figures, with their positions."""
    return [
        (n, method)
        for n, method in enumerate(methods)
        if all(run.clients is not None for run in method.runs)
    ]


def _clients(run: RunRecord) -> ClientFigures:
    assert run.clients is not None  # by _known
    return run.clients


def partition_and_accuracy(methods: Sequence[Method]) -> list[Picture]:
    """Return client x class counts of the first seed, beside each client's personal accuracy."""
    seed = min(run.seed for method in methods for run in method.runs)
    pictures: list[Picture] = []
    seen: dict[str, list[tuple[Method, RunRecord]]] = {}
    for method in methods:
        for run in method.runs:
            if run.seed == seed:
                seen.setdefault(run.result["partition_hash"], []).append((method, run))
    for number, (digest, pairs) in enumerate(seen.items(), start=1):
        slug = "partition" if number == 1 else f"partition-{number}"
        positions = {method.label: n for n, method in enumerate(methods)}
        pictures.append(_partition(slug, digest, pairs, positions))
    return pictures


def _partition(
    slug: str, digest: str, pairs: Sequence[tuple[Method, RunRecord]], positions: dict[str, int]
) -> Picture:
    run = pairs[0][1]
    counts, names = run.evaluation.client_counts, run.class_counts
    known = [(method, one) for method, one in pairs if one.clients is not None]
    view = PartitionView(counts, [str(c) for c in range(len(names))], dict(run.shots.items()))
    figure = new_figure(min(max(2.6 + 0.28 * len(counts), 4.0), 14.0))
    main, side = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    draw_heat(main, view)
    main.grid(visible=False)
    main.set_xticks(main.get_xticks(), main.get_xticklabels(), rotation=0, ha="center")
    main.set_xlabel("class")
    main.set_title("Training images of each client")
    _draw_accuracies(side, known, positions)
    how = (
        "Left: how many training images of each class a client holds; white cells are empty. "
        "Right: how often the client's own model is right on the client's own class mix."
    )
    alt = (
        f"Map of {len(counts)} clients by {len(names)} classes, {int(counts.sum())} images in all; "
        f"beside it the personal accuracy per client of {', '.join(m.label for m, _ in known)}."
    )
    title = f"Who holds what, and how the client fares: seed {run.seed}, partition {digest[:10]}"
    sheets = {"Clients": _clients_sheet(counts, known)}
    return Picture(slug, title, how, alt, figure, sheets)


def _draw_accuracies(
    axes: Axes, known: Sequence[tuple[Method, RunRecord]], positions: dict[str, int]
) -> None:
    many = len(known) > len(LOOKS)
    for method, run in known:
        figures, style = _clients(run), look(positions[method.label])
        color = "0.75" if many else style.color
        marker = "|" if many else style.marker
        edge: dict[str, Any] = {} if many else {"edgecolor": "white", "linewidth": 0.5}
        size, label = (60, None) if many else (32, method.label)
        axes.scatter(
            figures.accuracy, figures.cids, s=size, c=color, marker=marker, label=label, **edge
        )
    if many:
        clients = len(known[0][1].evaluation.client_counts)
        table: dict[int, list[float]] = {cid: [] for cid in range(clients)}
        for _, run in known:
            for cid, value in zip(_clients(run).cids.tolist(), _clients(run).accuracy, strict=True):
                table[cid].append(float(value))
        middle = {cid: statistics.median(values) for cid, values in table.items() if values}
        axes.scatter(
            list(middle.values()), list(middle), s=40, c="black", label="median of the methods"
        )
        axes.scatter([], [], s=60, c="0.75", marker="|", label="each method")
    axes.set_title("Personal accuracy")
    percent_axis(axes.xaxis)
    axes.tick_params(labelleft=False)
    if known:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.09), ncols=2, fontsize=8)


def _clients_sheet(counts: np.ndarray, known: Sequence[tuple[Method, RunRecord]]) -> Sheet:
    figures = [_clients(run) for _, run in known]
    tables = [dict(zip(f.cids.tolist(), f.accuracy.tolist(), strict=True)) for f in figures]
    rows: list[list[Cell | str]] = []
    for cid, row in enumerate(counts[:_MOST_ROWS]):
        held = ", ".join(f"{c}: {n}" for c, n in enumerate(row.tolist()) if n)
        cells = [share(table.get(cid)) for table in tables]
        rows.append([str(cid), Cell(str(row.sum()), float(row.sum())), held, *cells])
    left = len(counts) - len(rows)
    more = f" {left} more clients are in evaluations/ of the run directories." if left > 0 else ""
    note = f"Personal accuracy in % in the last round.{more}"
    return Sheet(["client", "images", "class: images", *(m.label for m, _ in known)], rows, note)


def client_distribution(methods: Sequence[Method]) -> list[Picture]:
    """Return each client's personal accuracy, a row of points per method, all seeds together."""
    known = _known(methods)
    if not known:
        return []
    figure = new_figure(1.3 + 0.34 * len(known))
    axes = figure.subplots()
    generator = np.random.default_rng(0)  # places points only
    rows: list[list[Cell | str]] = []
    for row, (position, method) in enumerate(known):
        values = np.concatenate([_clients(run).accuracy for run in method.runs])
        _draw_row(
            axes, row, values, generator, look(position).color if len(known) < 8 else "#0072B2"
        )
        quantiles = np.percentile(values, [0, 10, 25, 50, 75, 90, 100])
        mean = float(np.mean([_clients(run).accuracy.mean() for run in method.runs]))
        rows.append(
            [
                method.label,
                *map(share, quantiles),
                share(mean),
                Cell(str(values.size), float(values.size)),
            ]
        )
    axes.set_yticks(range(len(known)), [method.label for _, method in known])
    axes.set_ylim(len(known) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    percent_axis(axes.xaxis)
    axes.set_xlabel("accuracy of a client's own model on its own class mix")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, fontsize=9)
    how = (
        "Every dot is one client of one seed in the last round. The black bar is the median, the "
        "triangle the 10th percentile: one client in ten does worse than that."
    )
    words = [f"{r[0]} median {r[4].text} %, 10th percentile {r[2].text} %" for r in rows]  # type: ignore[union-attr]
    headings = ["method", "worst", "p10", "p25", "median", "p75", "p90", "best", "mean", "clients"]
    sheet = Sheet(headings, rows, "In %, over all clients of all seeds in the last round.")
    alt = f"Dots of personal accuracy, one per client. {'; '.join(words)}."
    return [
        Picture(
            "clients",
            "How evenly the clients are served",
            how,
            alt,
            figure,
            {"Distribution over clients": sheet},
        )
    ]


def _draw_row(
    axes: Axes, row: int, values: np.ndarray, generator: np.random.Generator, color: str
) -> None:
    places = row + generator.uniform(-0.28, 0.28, values.size)
    first = row == 0
    style: dict[str, Any] = {
        "s": 12,
        "alpha": 0.6,
        "linewidths": 0,
        "color": color,
        "rasterized": values.size > 2000,
    }
    axes.scatter(values, places, label="client" if first else None, **style)
    middle, low = np.percentile(values, [50, 10])
    axes.plot(
        [middle] * 2,
        [row - 0.36, row + 0.36],
        color="black",
        linewidth=2,
        label="median" if first else None,
    )
    label = "10th percentile" if first else None
    axes.plot(low, row, marker=">", color="black", markersize=6, linestyle="none", label=label)


def gain_by_size(methods: Sequence[Method]) -> list[Picture]:
    """Return a client's gain over the generic model against its size, a panel per method."""
    known = [
        (n, m) for n, m in _known(methods) if all(_clients(r).gain is not None for r in m.runs)
    ]
    known = [(n, m) for n, m in known if any(np.any(_clients(r).gain) for r in m.runs)]
    if not known:
        return []
    figure, made = grid_of(len(known), columns=min(4, len(known)), height=2.6)
    rows: list[list[Cell | str]] = []
    for axes, (_, method) in zip(made, known, strict=True):
        sizes, gains, owns = (np.concatenate(part) for part in _gains(method))
        for mask, marker, face, edge, label in (
            (owns, "^", "#E69F00", "black", "holds rare classes"),
            (~owns, "o", "white", "#0072B2", "holds none"),
        ):
            if mask.any():
                style: dict[str, Any] = {
                    "s": 22,
                    "marker": marker,
                    "facecolor": face,
                    "edgecolor": edge,
                }
                axes.scatter(sizes[mask], gains[mask], linewidths=0.8, label=label, **style)
        axes.axhline(0, color="black", linewidth=1)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_title(textwrap.fill(method.label, 24), fontsize=9)
        points_axis(axes.yaxis)
        rows += _size_rows(method.label, sizes, gains)
    figure.supxlabel("training images of the client (log scale)", fontsize=10)
    figure.supylabel("gain, percentage points", fontsize=10)
    handles, labels = max(
        (axes.get_legend_handles_labels() for axes in made), key=lambda p: len(p[1])
    )
    figure.legend(handles, labels, loc="outside upper center", ncols=2)
    how = (
        "Above the line a client is better served by its own model than by the generic one, below "
        "it is worse served. Methods whose personal models are the generic one are left out."
    )
    headings = ["method", "clients by size", "images", "mean gain", "worse off", "clients"]
    sheet = Sheet(
        headings, rows, "In percentage points, over all clients of all seeds, last round."
    )
    words = [f"{r[0]}, {r[1]} third: {r[3].text}" for r in rows]  # type: ignore[union-attr]
    alt = f"Gain by client size in percentage points. {'; '.join(words)}."
    return [
        Picture(
            "gain-by-size",
            "Who gains from a model of its own: small clients or large ones?",
            how,
            alt,
            figure,
            {"Gain by client size": sheet},
        )
    ]


def _gains(method: Method) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    figures = [_clients(run) for run in method.runs]
    owns = [np.ones(f.cids.size, bool) if f.owns_few is None else f.owns_few for f in figures]
    return [f.sizes for f in figures], [np.asarray(f.gain) for f in figures], owns


def _size_rows(label: str, sizes: np.ndarray, gains: np.ndarray) -> list[list[Cell | str]]:
    """Return the smallest, middle and largest third of the clients."""
    rows: list[list[Cell | str]] = []
    parts = np.array_split(np.argsort(sizes, kind="stable"), min(3, sizes.size))
    names = ("smallest", "middle", "largest") if len(parts) == 3 else ("smallest", "largest")
    for name, part in zip(names, parts, strict=False):
        worse = float((gains[part] < 0).mean())
        span = f"{sizes[part].min()} to {sizes[part].max()}"
        gain = share(float(gains[part].mean()), signed=True)
        rows.append([label, name, span, gain, share(worse), Cell(str(part.size), float(part.size))])
    return rows


def tail_owners(methods: Sequence[Method]) -> list[Picture]:
    """Return the gain of clients that hold rare classes beside that of the others."""
    which = which_of(methods)
    metrics = {"hold rare classes": "personal/gain_few_owners", "hold none": "personal/gain_others"}
    known = [m for m in methods if any(m.known(metric, which) for metric in metrics.values())]
    known = [m for m in known if any(any(m.known(x, which)) for x in metrics.values())]
    if not known:
        return []
    figure = new_figure(1.7 + 0.36 * len(known))
    axes = figure.subplots()
    for (label, metric), marker, color, shift in zip(
        metrics.items(), "^o", ("#D55E00", "#0072B2"), (-0.13, 0.13), strict=True
    ):
        found = [(row + shift, m.known(metric, which)) for row, m in enumerate(known)]
        found = [(row, values) for row, values in found if values]
        means = [statistics.fmean(values) for _, values in found]
        widths = [half_width(values) or 0.0 for _, values in found]
        face = color if marker == "^" else "white"
        axes.errorbar(
            means,
            [row for row, _ in found],
            xerr=widths,
            fmt=marker,
            color=color,
            markerfacecolor=face,
            markersize=7,
            elinewidth=1,
            label=f"clients that {label}",
        )
    axes.axvline(0, color="black", linewidth=1)
    axes.set_yticks(range(len(known)), [method.label for method in known])
    axes.set_ylim(len(known) - 0.4, -0.6)
    points_axis(axes.xaxis)
    axes.set_xlabel("mean gain over the generic model, percentage points")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    rows = [
        [
            m.label,
            *(spread(m.known(x, which), signed=True) for x in metrics.values()),
            _owners(m, which),
        ]
        for m in known
    ]
    sheet = Sheet(
        ["method", *metrics, "clients with rare classes"],
        rows,
        "In percentage points, mean ± 95 % interval over the seeds that have such clients.",
    )
    words = [f"{row[0]} {row[1].text} and {row[2].text}" for row in rows]  # type: ignore[union-attr]
    how = (
        "Gain is the accuracy of a client's own model minus the generic model's, on the client's "
        "own classes. Left of the line the clients would be better off without personal models."
    )
    alt = f"Mean gain of clients that hold rare classes and of the others: {'; '.join(words)}."
    return [
        Picture(
            "tail-owners",
            "Do the owners of rare classes gain or pay?",
            how,
            alt,
            figure,
            {"Gain of the owners of rare classes": sheet},
        )
    ]


def _owners(method: Method, which: str) -> Cell:
    values = method.values("personal/few_owners", which)
    return (
        Cell("-", None)
        if not values
        else Cell(f"{statistics.fmean(values):.3g}", statistics.fmean(values))
    )
