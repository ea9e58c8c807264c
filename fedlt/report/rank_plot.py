"""Figure of a leaderboard: mean ranks in each view, beside the critical difference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fedlt.comparing.ranking import Ranking
from fedlt.report.style import look, new_figure, round_axis

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def rank_figure(rankings: Sequence[Ranking]) -> Figure:
    """Return one panel per view: a point per method, the best at the top.

    The band reaches one critical difference beyond the best mean rank: Nemenyi's test does not tell
    methods inside the band from the best method.
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
        style = look(0)
        axes.plot(means, range(len(means)), linestyle="none", marker="o", color=style.color)
        axes.set_yticks(range(len(means)), list(one.means))
        axes.invert_yaxis()
        axes.set_xlim(0.5, len(means) + 0.5)
        axes.set_title(one.view)
        axes.set_xlabel(words)
        round_axis(axes.xaxis)
    return figure
