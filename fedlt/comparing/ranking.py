"""Mean ranks of methods over many blocks, and Nemenyi's critical difference.

A block is one data set with one seed. The ranks are those of Friedman's test. Nemenyi's test tells
two methods apart whose mean ranks differ by the critical difference (Demšar, "Statistical
Comparisons of Classifiers over Multiple Data Sets", JMLR 2006, section 3.2.2). The test assumes
independent blocks. Seeds of one data set share images: ranks here are a description, no verdict.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fedlt.comparing.cells import Runs, mark, values
from fedlt.comparing.conditions import Results
from fedlt.comparing.statistics import LEVEL
from fedlt.evaluation.headline import headlines


@dataclass(frozen=True)
class Ranking:
    """Mean ranks of the methods in one view."""

    view: str  # generic or personal
    means: Mapping[str, float]  # label -> mean rank, the best first
    blocks: int  # data sets x seeds
    difference: float | None  # critical difference; None: fewer than two methods
    averages: tuple[str, ...] = ()  # labels whose figures are of means of personal parts


def ranks(figures: Sequence[float]) -> list[float]:
    """Return the rank of each figure: 1 for the highest; equal figures share their mean rank."""
    return [sum(other > own for other in figures) + (1 + figures.count(own)) / 2 for own in figures]


def mean_ranks(blocks: Sequence[Sequence[float]]) -> list[float]:
    """Return each method's mean rank over blocks; a block has one figure per method."""
    return [statistics.fmean(own) for own in zip(*map(ranks, blocks), strict=True)]


def critical_difference(methods: int, blocks: int) -> float:
    """Return q sqrt(k (k + 1) / (6 N)) for k >= 2 methods and N blocks, at the level 5 %.

    q is the 95 % quantile of the range of k standard normal numbers, over sqrt(2).
    """
    from scipy.stats import studentized_range

    q = float(studentized_range.ppf(1 - LEVEL, methods, math.inf)) / math.sqrt(2)
    return q * math.sqrt(methods * (methods + 1) / (6 * blocks))


def rankings(tables: Mapping[str, Results], which: str) -> list[Ranking]:
    """Return the ranking of each view by its headline; a view without a ranked method is left out.

    Ranked are the federated methods that every data set has, with the headline in every run.

    Args:
        tables: The rows by data set.
        which: The moment of the figures: ``final``, ``last_k`` or ``selected``.
    """
    views = dict.fromkeys(
        view for results in tables.values() for view in headlines(next(iter(results.values()))[0])
    )
    found = []
    for view in views:
        figures = [_figures(results, view, which) for results in tables.values()]
        labels = [label for label in figures[0] if all(label in own for own in figures)]
        blocks = [
            block
            for own in figures
            for block in zip(*(own[label] for label in labels), strict=True)
        ]
        if labels:
            means = zip(labels, mean_ranks(blocks), strict=True)
            order = dict(sorted(means, key=lambda pair: pair[1]))
            size = len(blocks)
            limit = critical_difference(len(labels), size) if len(labels) > 1 else None
            found.append(Ranking(view, order, size, limit, _averages(tables, view, order)))
    return found


def _averages(tables: Mapping[str, Results], view: str, labels: Iterable[str]) -> tuple[str, ...]:
    """Return the labels whose headline of a view is marked in a table, on any data set."""
    return tuple(
        label
        for label in labels
        if any(mark(own[label], headlines(own[label][0])[view]) for own in tables.values())
    )


def _figures(results: Results, view: str, which: str) -> dict[str, list[float]]:
    """Return a view's headline over the seeds, by label, of the methods that have the headline."""

    def of(runs: Runs) -> list[float]:
        return values(runs, which, headlines(runs[0])[view])

    methods = {label: runs for label, runs in results.items() if not runs[0].get("reference")}
    return {label: of(runs) for label, runs in methods.items() if of(runs)}
