"""Rounds to accuracy: after how many rounds a run first reaches a level.

McMahan et al., Communication-efficient learning of deep networks from decentralized data, AISTATS
2017, section 3, https://arxiv.org/abs/1602.05629: the curve of the test accuracy is made monotone,
by the best value so far, and the round in which it crosses the level is interpolated linearly
between the evaluated rounds. The level is chosen before the run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedlt.runs.directory import RunDirectory

if TYPE_CHECKING:
    from fedlt.comparing.conditions import Results

METRIC = "generic/accuracy"


def crossing(curve: Iterable[tuple[int, float]], level: float) -> float | None:
    """Return the interpolated round in which the best value so far reaches a level.

    Args:
        curve: (round, value) of the evaluated rounds, ascending.
        level: The level.

    Returns:
        The round, not whole as a rule; the first evaluated round if its value is high enough; None
        if the level is never reached.
    """
    before: tuple[int, float] | None = None  # the last round, and the best value so far
    for round_, value in curve:
        if value >= level:
            if before is None:
                return float(round_)
            last, best = before
            return last + (round_ - last) * (level - best) / (value - best)
        before = round_, value if before is None else max(before[1], value)
    return None


def rounds_to(run: Mapping[str, Any], level: float, metric: str = METRIC) -> float | None:
    """Return the rounds to a level of a finished run, from its ``rounds.jsonl``.

    Args:
        run: Its result, with ``path``.
        level: A share, such as 0.97.
        metric: The metric of the level.
    """
    rows = RunDirectory(Path(run["path"])).rounds()
    curve = [(int(row["round"]), row[metric]) for row in rows if row.get(metric) is not None]
    return crossing(curve, level)


def with_rounds_to(results: Results, level: float) -> Results:
    """Return the rows of a table whose runs say their rounds to a level, for a further column."""
    return {
        label: [{**run, "rounds_to": (level, rounds_to(run, level))} for run in runs]
        for label, runs in results.items()
    }
