"""Style of figures: one look per method everywhere, distinguishable without colour too.

Each method has its own marker and line style, each class group a hatch, so that a print in black
and white shows the same. The colours are those of tones.py.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedlt.comparing.statistics import interval
from fedlt.errors import writing
from fedlt.report.tones import BLUE, FEW, GREY, GRID, MEDIUM, METHODS, PAGE

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 10.0  # inches
_LINE, _HANDLE = 112, 8  # characters in the width of a figure, and as wide as a legend's handle
_RC: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "grid.color": GRID.light,
    "legend.frameon": False,
    "hatch.linewidth": 0.6,
    "svg.hashsalt": "fedlt",  # the same file for the same numbers
}


@dataclass(frozen=True)
class Look:
    """Look of a method: colour, marker, line."""

    color: str
    marker: str
    line: Any  # a matplotlib line style

    def line_of(self, *, hollow: bool = False) -> dict[str, Any]:
        """Return the arguments of ``Axes.plot``; hollow markers have the page's colour inside."""
        inside, edge = (PAGE.light, self.color) if hollow else (self.color, PAGE.light)
        return {
            "color": self.color,
            "marker": self.marker,
            "linestyle": self.line,
            "markersize": 5,
            "linewidth": 1.6,
            "markerfacecolor": inside,
            "markeredgecolor": edge,
            "markeredgewidth": 1.1 if hollow else 0.6,
        }


_LINES: tuple[tuple[str, Any], ...] = (  # marker, line
    ("o", "-"),
    ("s", "--"),
    ("^", "-."),
    ("D", ":"),
    ("v", (0, (5, 1))),
    ("P", (0, (3, 1, 1, 1, 1, 1))),
    ("X", (0, (1, 1))),
)
LOOKS = tuple(Look(tone.light, *line) for tone, line in zip(METHODS, _LINES, strict=True))
GROUP_LOOKS = {  # class group -> fill, hatch
    "all": (GREY.light, ""),
    "many": (BLUE.light, ""),
    "medium": (MEDIUM.light, "///"),
    "few": (FEW.light, "xxx"),
}
MARKERS = {"all": "o", "many": "s", "medium": "D", "few": "^"}  # of a class group's points


def look(position: int) -> Look:
    """Return the look of the method at a position."""
    return LOOKS[position % len(LOOKS)]


def new_figure(height: float) -> Figure:
    """Return an empty figure in inches, laid out without overlaps."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def grid_of(panels: int, *, columns: int = 4, height: float = 1.9) -> tuple[Figure, list[Axes]]:
    """Return a figure of small panels that share their axes."""
    columns = min(columns, panels)
    rows = -(-panels // columns)
    figure = new_figure(max(height * rows + 0.6, 2.8))
    made = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    axes: list[Axes] = list(made.flat)
    for spare in axes[panels:]:
        spare.remove()
    for above in axes[max(panels - columns, 0) : panels]:  # the lowest panel of each column
        above.tick_params(labelbottom=True)
    return figure, axes[:panels]


def legend_below(figure: Figure, panels: Iterable[Axes]) -> None:
    """Draw one legend below the panels, for the labels of all panels."""
    named = {
        label: handle
        for axes in panels
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    outer_legend(figure, list(named.values()), list(named), "outside lower center")


def outer_legend(
    figure: Figure, handles: Sequence[Artist], labels: Sequence[str], where: str
) -> None:
    """Draw a legend outside the panels, in as many columns as the figure is wide enough for."""
    if labels:
        longest = max(map(len, labels))
        columns = max(1, min(5, len(labels), _LINE // (longest + _HANDLE)))
        place: dict[str, Any] = {"loc": where, "ncols": columns}
        figure.legend(handles, labels, handlelength=4, **place)


def whiskers(found: Sequence[Sequence[float]]) -> tuple[list[float], list[list[float]]]:
    """Return means of shares over seeds, and the 95 % intervals downwards and upwards.

    Intervals are cut to 0 and 1; for a single seed the interval has no width.
    """
    means = [statistics.fmean(values) for values in found]
    widths = [interval(values).half or 0.0 for values in found]
    low = [min(width, mean) for width, mean in zip(widths, means, strict=True)]
    high = [min(width, 1 - mean) for width, mean in zip(widths, means, strict=True)]
    return means, [low, high]


def percent_axis(axis: Any) -> None:  # noqa: ANN401 (a matplotlib axis)
    """Label an axis of shares in per cent."""
    from matplotlib.ticker import FuncFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g} %"))


def points_axis(axis: Any) -> None:  # noqa: ANN401 (a matplotlib axis)
    """Label an axis of differences of shares in percentage points."""
    from matplotlib.ticker import FuncFormatter

    axis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{100 * value:+.4g}" if value else "0")
    )


def round_axis(axis: Any) -> None:  # noqa: ANN401 (a matplotlib axis)
    """Label an axis of rounds with whole numbers."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=2))


def styled() -> Any:  # noqa: ANN401 (a context manager of matplotlib's)
    """Return the matplotlib context in which figures are made and written."""
    import matplotlib as mpl

    return mpl.rc_context(_RC)


def save(figure: Figure, folder: Path, slug: str, endings: Iterable[str]) -> Sequence[Path]:
    """Write a figure as ``folder/slug.<ending>`` for each ending; return the paths.

    Raises:
        FedltError: If a file cannot be written.
    """
    paths = [folder / f"{slug}.{ending}" for ending in endings]
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for path in paths:
            metadata = {"Date": None} if path.suffix == ".svg" else None
            figure.savefig(path, dpi=150, metadata=metadata)
    return paths
