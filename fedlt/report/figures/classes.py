"""Pictures of accuracy by class, frequent classes first: lines for few methods, a map for many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fedlt.comparing.sheet import DASH, Sheet, number, spread
from fedlt.data.arrays import FloatArray, IntArray
from fedlt.report.finished import Method, RunRecord
from fedlt.report.picture import Picture
from fedlt.report.style import GROUP_LOOKS, LOOKS, legend_below, look, new_figure, percent_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_VIEWS = {
    "generic": "Generic model",
    "personal": "Personal models (mean over the clients that hold the class)",
}
_WRITTEN = 400  # cells of a map that carry their number


def _by_rank(run: RunRecord, view: str) -> FloatArray | None:
    """Return the recalls (C,) of a run, the most frequent class first."""
    recalls = run.generic_recalls if view == "generic" else run.personal_recalls
    return None if recalls is None else recalls[_order(run)]


def _order(run: RunRecord) -> IntArray:
    """Return the class ids by decreasing count, ties by class id."""
    return np.argsort(-run.class_counts, kind="stable")


def class_accuracy(methods: Sequence[Method]) -> list[Picture]:
    """Return the picture of recall by class: lines for few methods, a map for many."""
    pictures = []
    found: dict[str, dict[str, list[FloatArray]]] = {}
    for view in _VIEWS:
        rows = {m.label: [_by_rank(run, view) for run in m.runs] for m in methods}
        known = {n: [r for r in v if r is not None] for n, v in rows.items() if _whole(v)}
        if known:
            found[view] = known
    if not found:
        return []
    if len(methods) <= len(LOOKS):
        pictures.append(_lines(methods, found))
    else:
        pictures += [_map(methods, view, rows) for view, rows in found.items()]
    return pictures


def _whole(rows: Sequence[FloatArray | None]) -> bool:
    return all(row is not None for row in rows)


def _names(methods: Sequence[Method]) -> list[str]:
    """Return names of classes by rank: the class id if all runs have the same order."""
    orders = {tuple(_order(run).tolist()) for m in methods for run in m.runs}
    size = len(next(iter(orders)))
    if len(orders) == 1:
        names = [f"class {label}" for label in orders.pop()]
    else:
        names = [f"rank {rank}" for rank in range(1, size + 1)]
    untested = {place for m in methods for run in m.runs for place in _untested(run)}
    return [f"{name}{_UNTESTED}" if n in untested else name for n, name in enumerate(names)]


_UNTESTED = ", no test images"  # after the name of a class that is trained and not scored


def _untested(run: RunRecord) -> list[int]:
    """Return the ranks of the classes without test images."""
    places: list[int] = np.flatnonzero(run.evaluation.test_counts[_order(run)] == 0).tolist()
    return places


def _counts(methods: Sequence[Method]) -> FloatArray:
    """Return the training images (C,) by rank, averaged over seeds."""
    runs = methods[0].runs
    mean: FloatArray = np.mean([run.class_counts[_order(run)] for run in runs], axis=0)
    return mean


_HOW = (
    "The share of a class's test images that the model gets right in the last round. Frequent "
    "classes stand first, rare ones last: a fall towards the end is the price of the "
    "long tail, as far as classes are equally hard."
)


def _how(methods: Sequence[Method]) -> str:
    """Return the reading help of the picture, with a sentence on classes without test images."""
    without = methods[0].scored_on.without
    words = f"{len(without)} class{'es' if len(without) > 1 else ''}"
    return f"{_HOW} Without test images, hence without a point: {words}." if without else _HOW


def _lines(methods: Sequence[Method], found: Mapping[str, Any]) -> Picture:
    names, counts = _names(methods), _counts(methods)
    figure = new_figure(5.2 + 0.25 * -(-len(methods) // 5))
    made = figure.subplots(2, len(found), height_ratios=(1, 4), squeeze=False, sharex="col")
    for column, (view, rows) in enumerate(found.items()):
        top, axes = made[:, column]
        _draw_counts(top, counts, methods[0].runs[0])
        top.set_title(_VIEWS[view].replace(" (", "\n("))
        for position, method in enumerate(methods):
            if method.label not in rows:
                continue
            values, style = np.array(rows[method.label]), look(position).line_of()
            places = range(len(names))
            axes.plot(places, values.mean(axis=0), label=method.label, **style)
            if len(values) > 1:
                band = (values.min(axis=0), values.max(axis=0))
                axes.fill_between(places, *band, color=style["color"], alpha=0.12, linewidth=0)
        _name_classes(axes, names, counts)
        percent_axis(axes.yaxis)
    made[0, 0].set_ylabel("images")
    made[1, 0].set_ylabel("recall")
    legend_below(figure, [made[1, 0]])
    sheets = [_sheet(view, names, counts, rows) for view, rows in found.items()]
    return Picture("classes", _TITLE, _how(methods) + _BANDS, _alt(found), figure, sheets)


_TITLE = "Accuracy per class, frequent classes first"
_BANDS = " Bands reach from the lowest to the highest seed."


def _draw_counts(axes: Axes, counts: FloatArray, run: RunRecord) -> None:
    """Draw the class sizes, hatched by group."""
    order = _order(run).tolist()
    for name, classes in run.shots.items():
        places = [place for place, label in enumerate(order) if label in classes]
        color, hatch = GROUP_LOOKS[name]
        style: dict[str, Any] = {
            "color": color,
            "hatch": hatch,
            "edgecolor": "white",
            "linewidth": 0,
        }
        if places:
            axes.bar(places, counts[places], width=0.9, label=name, **style)
    if not any(classes for _, classes in run.shots.items()):
        axes.bar(range(len(counts)), counts, width=0.9, color="0.6")
    else:
        axes.legend(fontsize=8, ncols=3, loc="upper right")


def _name_classes(axes: Axes, names: Sequence[str], counts: FloatArray) -> None:
    step = max(1, len(names) // 12)
    places = range(0, len(names), step)
    labels = [
        f"{name.removeprefix('class ')}\n({counts[place]:.0f})" + ("\nno test" if comma else "")
        for place in places
        for name, comma, _ in [names[place].partition(",")]
    ]
    axes.set_xticks(places, labels, fontsize=8)
    kind = "class" if names[0].startswith("class") else "rank"
    axes.set_xlabel(f"{kind} (training images)")


def _map(methods: Sequence[Method], view: str, rows: Mapping[str, Sequence[FloatArray]]) -> Picture:
    names, counts = _names(methods), _counts(methods)
    labels = [method.label for method in methods if method.label in rows]
    means = np.array([np.mean(rows[label], axis=0) for label in labels])
    figure = new_figure(1.6 + 0.24 * len(labels))
    axes = figure.subplots()
    image = axes.imshow(means, aspect="auto", cmap="cividis", vmin=0, vmax=1)
    axes.grid(visible=False)
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    _name_classes(axes, names, counts)
    if means.size <= _WRITTEN * 2 and len(names) <= 25:
        for (row, place), value in np.ndenumerate(means):
            color = "black" if value > 0.55 or np.isnan(value) else "white"
            text = DASH if np.isnan(value) else f"{100 * value:.0f}"
            axes.text(place, row, text, ha="center", va="center", fontsize=7, color=color)
    bar = figure.colorbar(image, ax=axes, label="recall", fraction=0.03, pad=0.01)
    percent_axis(bar.ax.yaxis)
    sheets = [_sheet(view, names, counts, rows)]
    title = f"{_TITLE}: {_VIEWS[view][0].lower()}{_VIEWS[view][1:]}"
    return Picture(f"classes-{view}", title, _how(methods), _alt({view: rows}), figure, sheets)


def _sheet(
    view: str,
    names: Sequence[str],
    counts: FloatArray,
    rows: Mapping[str, Sequence[FloatArray]],
) -> Sheet:
    lines: list[list[object]] = []
    for place, name in enumerate(names):
        cells = [spread([float(r[place]) for r in values]) for values in rows.values()]
        lines.append([name, number(counts[place], ".0f"), *cells])
    note = "In %, mean ± 95 % interval over seeds."
    return Sheet(_VIEWS[view], ["class", "training images", *rows], lines, [note])


def _alt(found: Mapping[str, Mapping[str, Sequence[FloatArray]]]) -> str:
    words = []
    for view, rows in found.items():
        means = {label: np.mean(values, axis=0) for label, values in rows.items()}
        known = {label: mean[~np.isnan(mean)] for label, mean in means.items()}
        ends = [
            f"{label} {100 * mean[0]:.0f} % to {100 * mean[-1]:.0f} %"
            for label, mean in known.items()
            if mean.size
        ]
        words.append(f"{_VIEWS[view]}, most frequent to rarest class: {', '.join(ends)}.")
    return f"Recall by class. {' '.join(words)}"
