"""Pictures of the clients: class counts, and accuracy of the personal model."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fedlt.comparing.sheet import Sheet, number, share, text_of
from fedlt.data.arrays import FloatArray
from fedlt.report.class_words import are_numbers, class_words
from fedlt.report.finished import ClientFigures, Method, RunRecord
from fedlt.report.marks import BASELINE, Mark, explain, look_of, name_of, said
from fedlt.report.partition_plot import PartitionView, draw_heat
from fedlt.report.picture import Picture
from fedlt.report.style import LOOKS, legend_below, new_figure, percent_axis
from fedlt.report.tones import BACKDROP, BLUE, GREY, INK, PAGE, PIXELS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_ROWS = 500  # most rows of a table of clients


def with_clients(methods: Sequence[Method]) -> list[tuple[int, Method]]:
    """Return the methods whose runs have figures per client, with their positions."""
    return [
        (n, method)
        for n, method in enumerate(methods)
        if all(run.clients is not None for run in method.runs)
    ]


def clients_of(run: RunRecord) -> ClientFigures:
    """Return the figures per client of a run of :func:`with_clients`."""
    assert run.clients is not None  # by with_clients
    return run.clients


def partition_and_accuracy(methods: Sequence[Method]) -> list[Picture]:
    """Return the picture of class counts in the first seed, beside personal accuracies."""
    seed = min(run.seed for method in methods for run in method.runs)
    pictures: list[Picture] = []
    seen: dict[str, list[tuple[Method, RunRecord]]] = {}
    for method in methods:
        for run in method.runs:
            if run.seed == seed:
                seen.setdefault(run.result["partition_hash"], []).append((method, run))
    for place, (digest, pairs) in enumerate(seen.items(), start=1):
        slug = "partition" if place == 1 else f"partition-{place}"
        positions = {method.label: n for n, method in enumerate(methods)}
        pictures.append(_partition(slug, digest, pairs, positions))
    return pictures


def _partition(
    slug: str, digest: str, pairs: Sequence[tuple[Method, RunRecord]], positions: dict[str, int]
) -> Picture:
    run = pairs[0][1]
    counts = run.evaluation.client_counts
    known = [(method, one) for method, one in pairs if one.clients is not None]
    classes, groups = class_words(run.class_names), dict(run.shots.items())
    view = PartitionView(counts, run.class_names, groups, scored_on=pairs[0][0].scored_on)
    figure = new_figure(min(max(2.6 + 0.28 * len(counts), 4.0), 14.0))
    main, side = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    draw_heat(main, view)
    main.grid(visible=False)
    if are_numbers(classes):
        main.set_xticks(main.get_xticks(), main.get_xticklabels(), rotation=0, ha="center")
    main.set_xlabel(f"class ({mark})" if (mark := main.get_xlabel()) else "class")
    main.set_title("Training images of each client")
    _draw_accuracies(side, known, positions)
    how = (
        "Left: how many training images of each class a client holds; blank cells are empty. "
        "Right: how often the client's own model is right on the client's own class mix; a model "
        "that always guesses the client's largest class is right as often as the thin line says."
    )
    if known:
        legend_below(figure, [side])
    shown = ", ".join(method.label for method, _ in known)
    alt = (
        f"Map of {len(counts)} clients by {len(classes)} classes, {int(counts.sum())} images in "
        f"all; beside it the personal accuracy per client of {shown}, and of always guessing the "
        f"client's largest class.{said([method for method, _ in known], ())}"
    )
    title = f"Who holds what, and how the client fares: seed {run.seed}, partition {digest[:10]}"
    sheets = [_clients_sheet(counts, known, run.client_names, classes)]
    return Picture(slug, title, how, alt, figure, sheets)


def _draw_accuracies(
    axes: Axes, known: Sequence[tuple[Method, RunRecord]], positions: dict[str, int]
) -> None:
    many = len(known) > len(LOOKS)
    for method, run in known:
        figures, style = clients_of(run), look_of(positions[method.label], method)
        color = BACKDROP.light if many else style.color
        marker = "|" if many else style.marker
        edge: dict[str, Any] = {} if many else {"edgecolor": PAGE.light, "linewidth": 0.5}
        size, label = (60, None) if many else (32, name_of(method))
        axes.scatter(
            figures.accuracy, figures.cids, s=size, c=color, marker=marker, label=label, **edge
        )
    if many:
        clients = len(known[0][1].evaluation.client_counts)
        table: dict[int, list[float]] = {cid: [] for cid in range(clients)}
        for _, run in known:
            for cid, value in zip(
                clients_of(run).cids.tolist(), clients_of(run).accuracy, strict=True
            ):
                table[cid].append(float(value))
        middle = {cid: statistics.median(values) for cid, values in table.items() if values}
        axes.scatter(
            list(middle.values()), list(middle), s=40, c=INK.light, label="median of the methods"
        )
        axes.scatter([], [], s=60, c=BACKDROP.light, marker="|", label="each method")
    if known:
        _draw_guesses(axes, known[0][1])
    axes.set_title("Personal accuracy")
    percent_axis(axes.xaxis)
    axes.tick_params(labelleft=False)


def _draw_guesses(axes: Axes, run: RunRecord) -> None:
    """Draw the accuracy of each scored client's trivial model, which guesses its largest class."""
    cids = clients_of(run).cids
    guesses = run.majority_guesses[cids]
    style: dict[str, Any] = {"colors": INK.light, "linewidth": 1.0, "zorder": 1.5}
    label = "always guessing the client's largest class"
    axes.vlines(guesses, cids - 0.4, cids + 0.4, label=label, **style)


def _clients_sheet(
    counts: np.ndarray,
    known: Sequence[tuple[Method, RunRecord]],
    names: Sequence[str],
    classes: Sequence[str],
) -> Sheet:
    figures = [clients_of(run) for _, run in known]
    tables = [dict(zip(f.cids.tolist(), f.accuracy.tolist(), strict=True)) for f in figures]
    rows: list[list[object]] = []
    for cid, row in enumerate(counts[:_MOST_ROWS]):
        held = ", ".join(f"{classes[c]}: {n}" for c, n in enumerate(row.tolist()) if n)
        cells = [share(table.get(cid)) for table in tables]
        client = f"{cid} {names[cid]}" if names else str(cid)
        rows.append([client, number(row.sum(), ""), held, *cells])
    left = len(counts) - len(rows)
    more = f" {left} more clients are in evaluations/ of the run directories." if left > 0 else ""
    note = f"Personal accuracy in % in the last round.{more}"
    columns = ["client", "images", "class: images", *(m.label for m, _ in known)]
    return Sheet("Clients", columns, rows, [note])


def client_distribution(methods: Sequence[Method]) -> list[Picture]:
    """Return the picture of clients' personal accuracies, a row of points per method, all seeds."""
    known = with_clients(methods)
    if not known:
        return []
    lines = _rows(known)
    figure = new_figure(1.7 + 0.34 * len(lines))
    axes = figure.subplots()
    generator = np.random.default_rng(0)  # places points only
    for place, line in enumerate(lines):
        _draw_row(axes, place, line, generator)
    axes.set_yticks(range(len(lines)), [line.name for line in lines])
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    percent_axis(axes.xaxis)
    axes.set_xlabel("accuracy of a client's own model on its own class mix")
    legend_below(figure, [axes])
    marks = _median_line(axes, [method for _, method in known])
    explain(figure, marks, "outside upper center")
    rows = [line.cells() for line in lines]
    words = [f"{r[0]} median {text_of(r[4])} %, 10th percentile {text_of(r[2])} %" for r in rows]
    headings = ["method", "lowest", "10th", "25th", "median", "75th", "90th", "highest"]
    note = "In %, percentiles over all clients of all seeds together, in the last round."
    columns = [*headings, "mean", "clients"]
    sheet = Sheet("Distribution over clients", columns, rows, [note])
    alt = f"Dots of personal accuracy, one per client. {'; '.join(words)}.{said(methods, marks)}"
    return [Picture("clients", "How evenly the clients are served", _EVEN, alt, figure, [sheet])]


_GUESS = "guess: largest class"
_EVEN = (
    "Every dot is one client of one seed in the last round. The bar is the median, the triangle "
    "the 10th percentile: one client in ten does worse than that. The last row is a model that "
    "always guesses the client's largest class."
)
_DOTS = 2000  # most dots of a row that are drawn one by one; more become pixels


@dataclass(frozen=True)
class _Row:
    """Row of the picture: the accuracies of a method's clients, an array (E,) per seed."""

    name: str
    seeds: Sequence[FloatArray]
    color: str

    @property
    def values(self) -> FloatArray:
        """Accuracies of all clients of all seeds."""
        return np.concatenate(self.seeds)

    def cells(self) -> list[object]:
        """Return the row of the table."""
        quantiles = np.percentile(self.values, [0, 10, 25, 50, 75, 90, 100])
        mean = float(np.mean([values.mean() for values in self.seeds]))
        return [self.name, *map(share, (*quantiles, mean)), number(self.values.size, "")]


def _rows(known: Sequence[tuple[int, Method]]) -> list[_Row]:
    """Return the rows of the methods, and last that of the trivial model."""
    few = len(known) <= len(LOOKS)
    rows = [
        _Row(
            name_of(method),
            [clients_of(run).accuracy for run in method.runs],
            look_of(position, method).color if few else BLUE.light,
        )
        for position, method in known
    ]
    guesses = [run.majority_guesses[clients_of(run).cids] for run in known[0][1].runs]
    return [*rows, _Row(_GUESS, guesses, GREY.light)]


def _median_line(axes: Axes, methods: Sequence[Method]) -> list[Mark]:
    """Draw the median of the method that the others are tested against; return its mark, if any."""
    from matplotlib.lines import Line2D

    found = next((method for method in methods if method.is_baseline), None)
    if found is None:
        return []
    middle = float(np.median(np.concatenate([clients_of(run).accuracy for run in found.runs])))
    axes.axvline(middle, zorder=1.5, **BASELINE)
    words = f"median of {found.label}: the others are tested against it"
    return [Mark(Line2D([], [], **BASELINE), words, f"Dashed line: {words}.")]


def _draw_row(axes: Axes, place: int, row: _Row, generator: np.random.Generator) -> None:
    values, first = row.values, place == 0
    are_pixels = values.size > _DOTS  # which cannot follow the colours of the page
    style: dict[str, Any] = {
        "s": 12,
        "alpha": 0.85,
        "linewidths": 0,
        "color": PIXELS if are_pixels else row.color,
        "rasterized": are_pixels,
    }
    heights = place + generator.uniform(-0.28, 0.28, values.size)
    axes.scatter(values, heights, label="client" if first else None, **style)
    middle, low = np.percentile(values, [50, 10])
    bar: dict[str, Any] = {"color": INK.light, "linewidth": 2}
    label = "median" if first else None
    axes.plot([middle] * 2, [place - 0.36, place + 0.36], label=label, **bar)
    triangle: dict[str, Any] = {"marker": ">", "color": INK.light, "linestyle": "none"}
    label = "10th percentile" if first else None
    axes.plot(low, place, markersize=6, label=label, **triangle)
