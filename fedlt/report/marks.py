"""Marks in pictures: rows that are no contenders, and lines to compare with, as in the tables.

hollow, ~     generic model averaged from personal parts; the method itself has none
grey          reference point that is not federated
dotted line   trivial personal model, which always guesses a client's largest class
dashed line   method that the others are tested against
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from fedlt.comparing.cells import AVERAGE, majority_guess
from fedlt.comparing.sheet import percent
from fedlt.report.finished import MOMENT, Method
from fedlt.report.style import look, outer_legend
from fedlt.report.tones import GREY, INK, PAGE

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from fedlt.report.style import Look


class Mark(NamedTuple):
    """Mark: an entry of the legend, and a sentence of the alternative text."""

    handle: Artist
    words: str
    alt: str


TRIVIAL: dict[str, Any] = {"color": INK.light, "linewidth": 1.0, "linestyle": (0, (1, 2))}
BASELINE: dict[str, Any] = {"color": INK.light, "linewidth": 1.0, "linestyle": (0, (6, 3))}
_HOLLOW: dict[str, Any] = {
    "linestyle": "none",
    "markerfacecolor": PAGE.light,
    "markeredgecolor": INK.light,
}
_TILDE: dict[str, Any] = {
    "marker": r"$\sim$",
    "linestyle": "none",
    "color": INK.light,
    "markersize": 9,
}
_AVERAGED = "averaged from personal parts; the method has no such model"


def name_of(method: Method, *, generic: bool = False) -> str:
    """Return a method's name on an axis or in a legend; with ``generic``, its generic model's."""
    start = f"{AVERAGE} " if generic and method.is_average else ""
    return f"{start}{method.label}{' (not federated)' if method.reference else ''}"


def look_of(position: int, method: Method) -> Look:
    """Return the look of a method at a position; that of a reference point is grey."""
    own = look(position)
    return replace(own, color=GREY.light) if method.reference else own


def line_of(position: int, method: Method, *, generic: bool = False) -> dict[str, Any]:
    """Return the arguments of ``Axes.plot`` for a method, or for its generic model."""
    style = look_of(position, method).line_of(hollow=generic and method.is_average)
    return {**style, "linewidth": 1.0, "markersize": 4} if method.reference else style


def averaged(methods: Iterable[Method], *, tilde: bool = False, marker: str = "o") -> list[Mark]:
    """Return the mark of generic models averaged from personal parts, if a method has one.

    Args:
        methods: The methods of the picture.
        tilde: Whether ``~`` before a name marks them; else they are hollow.
        marker: The hollow marker of the legend.
    """
    from matplotlib.lines import Line2D

    names = [method.label for method in methods if method.is_average]
    if not names:
        return []
    style = _TILDE if tilde else {**_HOLLOW, "marker": marker}
    words = _AVERAGED if tilde else f"hollow ({AVERAGE}): {_AVERAGED}"
    shown = AVERAGE if tilde else f"Hollow ({AVERAGE})"
    alt = f"{shown}: the generic model of {', '.join(names)} is {_AVERAGED}."
    return [Mark(Line2D([], [], **style), words, alt)]


def trivial(panels: Iterable[Axes], methods: Sequence[Method], *, across: bool) -> list[Mark]:
    """Draw the mean accuracy of the trivial personal model in panels; return its mark, if known.

    Args:
        panels: The panels of the personal view.
        methods: The methods, which share the trivial model.
        across: Whether accuracy is the vertical axis, hence the line horizontal.
    """
    guess = majority_guess([method.results for method in methods], MOMENT)
    if guess is None:
        return []
    words = "always guessing a client's largest class"
    alt = f"Dotted line: {words}, {percent(guess)} %."
    return [Mark(_line(panels, guess, TRIVIAL, across=across), words, alt)]


def baseline(
    panels: Iterable[Axes], methods: Sequence[Method], metric: str, what: str, *, across: bool
) -> list[Mark]:
    """Draw the mean of the method that the others are tested against; return its mark, if any.

    Args:
        panels: The panels of one view.
        methods: The methods.
        metric: The drawn metric.
        what: The metric in words.
        across: Whether the metric is the vertical axis.
    """
    found = next((method for method in methods if method.is_baseline), None)
    values = [] if found is None else found.values(metric, MOMENT)
    if found is None or not values:
        return []
    mean = statistics.fmean(values)
    words = f"{found.label}, {what}: the others are tested against it"
    start = AVERAGE if found.is_average and metric.startswith("generic/") else ""
    view = metric.partition("/")[0]
    alt = f"Dashed line: {found.label}, {what}, {view} {start}{percent(mean)} %."
    return [Mark(_line(panels, mean, BASELINE, across=across), words, alt)]


def _line(panels: Iterable[Axes], value: float, style: dict[str, Any], *, across: bool) -> Artist:
    """Draw a thin line through panels; return its handle for a legend."""
    from matplotlib.lines import Line2D

    for axes in panels:
        draw = axes.axhline if across else axes.axvline
        draw(value, zorder=1.5, **style)
    return Line2D([], [], **style)


def explain(figure: Figure, marks: Sequence[Mark], where: str = "outside lower center") -> None:
    """Draw the legend of the marks, each once."""
    named = {mark.words: mark.handle for mark in marks}
    outer_legend(figure, list(named.values()), list(named), where)


def said(methods: Iterable[Method], marks: Iterable[Mark]) -> str:
    """Return the end of an alternative text: what marks and grey rows mean, after a space."""
    sentences = [mark.alt for mark in marks]
    names = [f"{m.label} ({m.reference})" for m in methods if m.reference]
    if names:
        sentences.append(f"Not federated, for reference: {', '.join(names)}.")
    return "".join(f" {sentence}" for sentence in dict.fromkeys(sentences))
