"""Drawing of a partition: images by client and class; and the cost of a round.

The heat map uses cividis, which keeps its order for every kind of colour vision and in grey (Nuñez,
Anderton and Renslow, PLOS ONE 2018, doi:10.1371/journal.pone.0199239); empty cells are blank, and
the counts are written into the cells where they fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fedlt.comparing.sheet import DASH, percent
from fedlt.config.cohort import cohort_size
from fedlt.data.arrays import FloatArray, IntArray
from fedlt.errors import writing
from fedlt.evaluation.headline import ScoredSet
from fedlt.report.class_words import class_words
from fedlt.report.tones import BLANK, INK, ON_DEEP, ON_PALE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MAX_CLIENTS = 40  # rows on a terminal
_MAX_CLASSES = 20  # columns of numbers on a terminal; more are shades
_MAX_WRITTEN = 800  # cells with numbers in the PNG
_SIZES = ("images", "classes", "majority %")
_MAX_BARS = 200  # clients with a bar each in the PNG; more are one outline
_SHADES = " ░▒▓█"
_HATCHES = {"many": "", "medium": "//", "few": "xx"}


@dataclass(frozen=True)
class PartitionView:
    """Content of the drawing of a partition."""

    counts: IntArray  # (K, C) training images by client and class
    class_names: Sequence[str]  # (C,)
    groups: Mapping[str, Sequence[int]] = field(default_factory=dict)  # shot group -> class ids
    title: str = ""
    scored_on: ScoredSet = field(default_factory=lambda: ScoredSet(()))  # no counts: not shown
    client_names: Sequence[str] = ()  # (K,); (): clients are shown by number only

    def group_of(self, label: int) -> str:
        """Return the name of a class's group (many, medium, few), or a dash."""
        return next((name for name, classes in self.groups.items() if label in classes), DASH)

    def majority_shares(self) -> FloatArray:
        """Return the share (K,) of each client's largest class; 0 for an empty client."""
        shares: FloatArray = self.counts.max(axis=1) / np.maximum(self.counts.sum(axis=1), 1)
        return shares


@dataclass(frozen=True)
class Cost:
    """Cost of one round, averaged over cohorts."""

    images: float  # images through forward and backward passes, all clients of a cohort together
    bytes_down: int | None  # server to clients, all together; None: unknown model
    bytes_up: int | None


def estimate_cost(
    counts: IntArray,
    *,
    clients_per_round: float | None,
    passes: FloatArray,
    model_bytes: int | None = None,
) -> Cost:
    """Return the estimated cost of a round.

    Args:
        counts: (K, C) training images.
        clients_per_round: Size of a cohort, or its share of the clients; None: all clients.
        passes: (K,) passes over each client's images.
        model_bytes: Size of the shared part of the model.
    """
    clients = len(counts)
    cohort = cohort_size(clients_per_round, clients)
    images = float(counts.sum(axis=1) @ passes) * cohort / clients
    moved = None if model_bytes is None else model_bytes * cohort
    return Cost(images, moved, moved)


def cost_text(cost: Cost, rounds: int) -> str:
    """Return ``cost`` as one line of text."""
    line = f"per round {cost.images:,.0f} images; in {rounds} rounds {cost.images * rounds:,.0f}"
    if cost.bytes_down is None or cost.bytes_up is None:
        return line
    return f"{line}; per round {_mib(cost.bytes_down)} down, {_mib(cost.bytes_up)} up"


def _mib(size: int) -> str:
    return f"{size / 2**20:,.2f} MiB"


def show_partition(view: PartitionView) -> RenderableType:
    """Return the partition as tables for the terminal: clients, classes, shot groups."""
    note = view.scored_on.note(view.class_names)
    parts: list[RenderableType] = [Text(line) for line in (view.title, note) if line]
    parts += [_client_table(view), _summary(view)]
    if len(view.class_names) <= _MAX_CLASSES:
        parts.append(_class_table(view))
    if any(view.groups.values()):
        parts.append(_group_table(view))
    return Group(*parts)


def _client_table(view: PartitionView) -> Table:
    clients, classes = view.counts.shape
    numbers = classes <= _MAX_CLASSES
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("cid", *(("name",) if view.client_names else ()), *_SIZES):
        table.add_column(heading, justify="left" if heading == "name" else "right")
    for heading in map(str, range(classes)) if numbers else (f"classes 0 to {classes - 1}",):
        table.add_column(heading, justify="right" if numbers else "left", no_wrap=True)
    shares, peak = view.majority_shares(), int(view.counts.max(initial=1))
    for cid, row in enumerate(view.counts[:_MAX_CLIENTS]):
        cells = map(_count, row) if numbers else (_shades(row, peak),)
        held = int((row > 0).sum())
        named = (str(cid), *view.client_names[cid : cid + 1])
        table.add_row(*named, str(row.sum()), str(held), percent(shares[cid]), *cells)
    if clients > _MAX_CLIENTS:
        table.caption = f"and {clients - _MAX_CLIENTS} more clients"
    return table


def _count(number: int) -> str:
    return str(number) if number else "·"


def _shades(row: IntArray, peak: int) -> str:
    """Return one character per class; on a logarithmic scale, darker means more images."""
    level = np.ceil(np.log1p(row) / np.log1p(peak) * (len(_SHADES) - 1)).astype(int)
    return "".join(_SHADES[i] for i in level)


def _summary(view: PartitionView) -> Text:
    sizes, held = view.counts.sum(axis=1), (view.counts > 0).sum(axis=1)
    words = [
        f"{len(sizes)} clients, {sizes.sum():,} images",
        f"images per client {sizes.min()} to {sizes.max()}, median {np.median(sizes):g}",
        f"classes per client {held.min()} to {held.max()}, median {np.median(held):g}",
        f"mean majority share {percent(float(view.majority_shares().mean()))} %",
    ]
    if empty := int((sizes == 0).sum()):
        words.append(f"clients without images: {empty}")
    return Text("; ".join(words))


def _class_table(view: PartitionView) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    scored = view.scored_on
    more = (scored.name.partition(" ")[0],) if scored.counts else ()
    for heading in ("class", "name", "images", "group", "clients", *more):
        table.add_column(heading, justify="left" if heading in ("name", "group") else "right")
    totals, owners = view.counts.sum(axis=0), (view.counts > 0).sum(axis=0)
    for label, name in enumerate(view.class_names):
        row = (str(label), str(name), str(totals[label]), view.group_of(label), str(owners[label]))
        table.add_row(*row, *(str(scored.counts[label] or "none") for _ in more))
    return table


def _group_table(view: PartitionView) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("group", "classes", "images", "images per class"):
        table.add_column(heading, justify="left" if heading == "group" else "right")
    totals = view.counts.sum(axis=0)
    for name, classes in view.groups.items():
        if not classes:
            table.add_row(name, DASH, DASH, DASH)
            continue
        part = totals[list(classes)]
        table.add_row(name, str(len(part)), str(part.sum()), f"{part.min()} to {part.max()}")
    return table


def draw_partition(view: PartitionView, path: Path) -> None:
    """Write the heat map with class totals above and client sizes at the right, as PNG.

    Raises:
        FedltError: If ``path`` cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    clients, classes = view.counts.shape
    width, height = _clip(4 + 0.45 * classes, 24), _clip(3 + 0.3 * clients, 30)
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        2, 2, width_ratios=(width - 1.5, 1.5), height_ratios=(1.2, height - 1.2)
    )
    main = figure.add_subplot(grid[1, 0])
    draw_heat(main, view)
    _draw_totals(figure.add_subplot(grid[0, 0], sharex=main), view)
    _draw_sizes(figure.add_subplot(grid[1, 1], sharey=main), view)
    if view.title:
        figure.suptitle(view.title)
    with writing(path):
        figure.savefig(path, format="png", dpi=120)


def _clip(inches: float, most: float) -> float:
    return min(max(inches, 4.0), most)


def _ticks(peak: int) -> list[int]:
    """Return powers of ten up to ``peak``, and ``peak`` itself where its label has room."""
    ticks = [10**power for power in range(len(str(peak)))]
    return ticks if len(ticks) > 1 and peak < 4 * ticks[-1] else [*ticks, peak]


def draw_heat(axes: Axes, view: PartitionView) -> None:
    """Draw the counts as a map, clients down and classes across."""
    from matplotlib.colors import LogNorm

    clients, classes = view.counts.shape
    peak = max(int(view.counts.max(initial=1)), 2)
    shown = np.ma.masked_equal(view.counts, 0)
    image = axes.imshow(
        shown, aspect="auto", cmap="cividis_r", norm=LogNorm(1, peak), interpolation="none"
    )
    if view.counts.size <= _MAX_WRITTEN:
        _write_counts(axes, view.counts, peak)
    axes.set_facecolor(BLANK.light)
    label = "images (log scale; blank: none)"
    bar = axes.figure.colorbar(
        image, ax=axes, label=label, location="bottom", aspect=40, format="%g", ticks=_ticks(peak)
    )
    bar.ax.minorticks_off()
    axes.set_ylabel("client")
    step, every = max(1, classes // 25), max(1, clients // 40)
    words = class_words(list(map(str, view.class_names)))
    labels = [words[c] if step == 1 else str(c) for c in range(0, classes, step)]
    axes.set_xticks(range(0, classes, step), labels, rotation=45, ha="right", fontsize=8)
    axes.set_yticks(range(0, clients, every), map(str, range(0, clients, every)), fontsize=8)
    if view.scored_on.without:
        style: dict[str, Any] = {"marker": "x", "color": INK.light, "clip_on": False}
        axes.plot(view.scored_on.without, [-0.5] * len(view.scored_on.without), ls="", **style)
        axes.set_xlabel(f"x: no images in the {view.scored_on.name}")


def _write_counts(axes: Axes, counts: IntArray, peak: int) -> None:
    for cid, label in np.argwhere(counts):
        number = int(counts[cid, label])
        dark = np.log(number) > 0.5 * np.log(peak)
        axes.text(
            label,
            cid,
            str(number),
            ha="center",
            va="center",
            fontsize=6,
            color=ON_DEEP if dark else ON_PALE,
        )


def _draw_totals(axes: Axes, view: PartitionView) -> None:
    totals = view.counts.sum(axis=0)
    named = {name: list(classes) for name, classes in view.groups.items() if classes}
    for name, classes in (named or {"": list(range(len(totals)))}).items():
        hatch = _HATCHES.get(name, "")
        style: dict[str, Any] = {"color": "0.85", "edgecolor": "0.2", "linewidth": 0.5}
        axes.bar(classes, totals[classes], hatch=hatch, label=name or None, **style)
    axes.set_ylabel("images")
    axes.tick_params(labelbottom=False)
    if named:
        axes.legend(fontsize=7, ncols=3)


def _draw_sizes(axes: Axes, view: PartitionView) -> None:
    sizes = view.counts.sum(axis=1)
    if len(sizes) <= _MAX_BARS:
        axes.barh(range(len(sizes)), sizes, color="0.6")
    else:
        axes.fill_betweenx(range(len(sizes)), sizes, step="mid", color="0.6", linewidth=0)
    axes.set_xlabel("images")
    axes.tick_params(labelleft=False)
