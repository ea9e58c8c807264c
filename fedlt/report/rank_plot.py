"""Figure of a leaderboard: mean ranks in each view, beside the critical difference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fedlt.comparing.cells import AVERAGE
from fedlt.comparing.ranking import Ranking
from fedlt.report.style import look, new_figure, round_axis

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def rank_figure(rankings: Sequence[Ranking]) -> Figure:
    """Return one panel per view: a point per method, the best at the top.

    The band reaches one critical difference beyond the best mean rank: Nemenyi's test does not tell
    methods inside the band from the best method. Generic models averaged from personal parts are
    hollow, with ``~`` before their names.
    """
    most = max(len(one.means) for one in rankings)
    figure = new_figure(1.3 + 0.28 * most)
    panels = figure.subplots(1, len(rankings), squeeze=False)[0]
    for axes, one in zip(panels, rankings, strict=True):
        means = list(one.means.values())
        words = f"mean rank of {len(means)} in {one.blocks} blocks, 1 is best"
        if one.difference is not None:
            axes.axvspan(means[0], means[0] + one.difference, color="0.9", zorder=0)
            words += f"\nband: critical difference {one.difference:.2f}"
        for place, (label, mean) in enumerate(one.means.items()):
            style = look(0).line_of(hollow=label in one.averages)
            axes.plot(mean, place, **style)
        marks = [AVERAGE if label in one.averages else "" for label in one.means]
        names = [f"{mark}{label}" for mark, label in zip(marks, one.means, strict=True)]
        axes.set_yticks(range(len(means)), names)
        axes.set_ylim(len(means) - 0.5, -0.5)
        axes.set_xlim(0.5, len(means) + 0.5)
        axes.set_title(one.view)
        axes.set_xlabel(words, loc="right")  # it may be wider than a panel beside long names
        round_axis(axes.xaxis)
    return figure
