"""Pictures of accuracy by class, frequent classes first: lines for few methods, a map for many."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fedlt.comparing.cells import mark
from fedlt.comparing.sheet import DASH, Sheet, number, spread
from fedlt.data.arrays import FloatArray, IntArray
from fedlt.report.class_words import class_words
from fedlt.report.finished import Method, RunRecord
from fedlt.report.marks import averaged, explain, line_of, name_of, said
from fedlt.report.picture import Picture
from fedlt.report.style import GROUP_LOOKS, LOOKS, legend_below, new_figure, percent_axis
from fedlt.report.tones import BLANK, GREY, ON_DEEP, ON_PALE, PAGE

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


class _Places(NamedTuple):
    """Names of the classes by rank, for the axes and tables."""

    kind: str  # class, or rank where runs differ in the order of the classes
    words: Sequence[str]  # (C,) a name, or a number
    untested: Collection[int]  # ranks of classes that are trained and not scored

    @property
    def named(self) -> bool:
        """Whether a word is more than a number."""
        return not all(word.isdecimal() for word in self.words)

    def rows(self) -> list[str]:
        """Return the first column (C,) of a table."""
        start = "" if self.named else f"{self.kind} "
        return [
            f"{start}{word}{_UNTESTED if place in self.untested else ''}"
            for place, word in enumerate(self.words)
        ]


_UNTESTED = ", no test images"  # after the name of a class that is trained and not scored


def _places(methods: Sequence[Method]) -> _Places:
    """Return the classes by rank: by name if all runs have the same order of the same classes."""
    runs = [run for method in methods for run in method.runs]
    orders = {tuple(class_words(run.class_names)[c] for c in _order(run)) for run in runs}
    ranks = [str(rank) for rank in range(1, len(next(iter(orders))) + 1)]
    untested = {place for run in runs for place in _untested(run)}
    if len(orders) == 1:
        return _Places("class", orders.pop(), untested)
    return _Places("rank", ranks, untested)


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
    places, counts = _places(methods), _counts(methods)
    figure = new_figure(5.4 + 0.25 * -(-len(methods) // 5))
    made = figure.subplots(2, len(found), height_ratios=(1, 4), squeeze=False, sharex="col")
    for column, (view, rows) in enumerate(found.items()):
        top, axes = made[:, column]
        _draw_counts(top, counts, methods[0].runs[0])
        top.set_title(_VIEWS[view].replace(" (", "\n("))
        for position, method in enumerate(methods):
            if method.label not in rows:
                continue
            values, ranks = np.array(rows[method.label]), range(len(counts))
            style = line_of(position, method, generic=view == "generic")
            axes.plot(ranks, values.mean(axis=0), label=name_of(method), **style)
            if len(values) > 1:
                band = (values.min(axis=0), values.max(axis=0))
                axes.fill_between(ranks, *band, color=style["color"], alpha=0.12, linewidth=0)
        _name_classes(axes, places, counts)
        percent_axis(axes.yaxis)
    made[0, 0].set_ylabel("images")
    made[1, 0].set_ylabel("recall")
    legend_below(figure, made[1])
    marks = averaged(methods) if "generic" in found else []
    explain(figure, marks, "outside upper center")
    sheets = [_sheet(view, methods, places.rows(), counts, rows) for view, rows in found.items()]
    alt = f"{_alt(found)}{said(methods, marks)}"
    return Picture("classes", _TITLE, _how(methods) + _BANDS, alt, figure, sheets)


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
            "edgecolor": PAGE.light,
            "linewidth": 0,
        }
        if places:
            axes.bar(places, counts[places], width=0.9, label=name, **style)
    if not any(classes for _, classes in run.shots.items()):
        axes.bar(range(len(counts)), counts, width=0.9, color=GREY.light)
    else:
        axes.legend(fontsize=8, ncols=3, loc="upper right")


def _name_classes(axes: Axes, places: _Places, counts: FloatArray) -> None:
    shown = range(0, len(counts), max(1, len(counts) // 12))
    start = "rank " if places.kind == "rank" else ""
    apart = " " if places.named else "\n"  # a name stands on the slant, on one line
    labels = [
        f"{start}{places.words[place]}{apart}({counts[place]:.0f})"
        f"{f'{apart}no test' if place in places.untested else ''}"
        for place in shown
    ]
    slant: dict[str, Any] = {"rotation": 45, "ha": "right"} if places.named else {}
    axes.set_xticks(shown, labels, fontsize=8, **slant)
    axes.set_xlabel(f"{places.kind} (training images)")


def _map(methods: Sequence[Method], view: str, rows: Mapping[str, Sequence[FloatArray]]) -> Picture:
    places, counts = _places(methods), _counts(methods)
    shown = [method for method in methods if method.label in rows]
    labels = [name_of(method, generic=view == "generic") for method in shown]
    means = np.array([np.mean(rows[method.label], axis=0) for method in shown])
    figure = new_figure(1.6 + 0.24 * len(labels))
    axes = figure.subplots()
    image = axes.imshow(means, aspect="auto", cmap="cividis", vmin=0, vmax=1)
    axes.set_facecolor(BLANK.light)
    axes.grid(visible=False)
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    _name_classes(axes, places, counts)
    if means.size <= _WRITTEN * 2 and len(counts) <= 25:
        for (row, place), value in np.ndenumerate(means):
            color = ON_PALE if value > 0.55 or np.isnan(value) else ON_DEEP
            text = DASH if np.isnan(value) else f"{100 * value:.0f}"
            axes.text(place, row, text, ha="center", va="center", fontsize=7, color=color)
    bar = figure.colorbar(image, ax=axes, label="recall", fraction=0.03, pad=0.01)
    percent_axis(bar.ax.yaxis)
    marks = averaged(shown, tilde=True) if view == "generic" else []
    explain(figure, marks)
    sheets = [_sheet(view, methods, places.rows(), counts, rows)]
    title = f"{_TITLE}: {_VIEWS[view][0].lower()}{_VIEWS[view][1:]}"
    alt = f"{_alt({view: rows})}{said(shown, marks)}"
    return Picture(f"classes-{view}", title, _how(methods), alt, figure, sheets)


def _sheet(
    view: str,
    methods: Sequence[Method],
    names: Sequence[str],
    counts: FloatArray,
    rows: Mapping[str, Sequence[FloatArray]],
) -> Sheet:
    lines: list[list[object]] = []
    marks = {method.label: mark(method.results, f"{view}/accuracy") for method in methods}
    for place, name in enumerate(names):
        cells = [
            spread([float(one[place]) for one in values], mark=marks[label])
            for label, values in rows.items()
        ]
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
