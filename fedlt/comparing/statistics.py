"""Statistics over seeds: intervals, the paired t test, Holm's correction, effect sizes.

The unit is the seed: rows of a comparison are paired by it, since a seed has the same partition in
every row. Student, "The probable error of a mean", Biometrika 1908; Holm, "A simple sequentially
rejective multiple test procedure", Scandinavian Journal of Statistics 1979; the effect size is
Cohen's d of paired differences with the small-sample factor of Hedges, "Distribution theory for
Glass's estimator of effect size", Journal of Educational Statistics 1981.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

LEVEL = 0.05  # of every interval and verdict
ROUNDING = 1e-12  # a spread of differences below this is rounding


@dataclass(frozen=True)
class Interval:
    """Mean with its 95 % confidence interval ``mean ± half``."""

    mean: float
    half: float | None  # None: one value has no interval


@dataclass(frozen=True)
class PairedTest:
    """Test of a method against a reference, paired by seed."""

    seeds: int
    difference: Interval  # method minus reference
    p: float | None  # two-sided, not corrected; None with one seed
    effect: float | None  # mean over deviation of the differences, times Hedges' factor; 3+ seeds


def interval(values: Sequence[float]) -> Interval:
    """Return the mean of at least one value and t(n - 1, 0.975) s / sqrt(n)."""
    mean, size = statistics.fmean(values), len(values)
    if size < 2:
        return Interval(mean, None)
    from scipy.special import stdtrit

    spread = _deviation(values, mean)
    return Interval(mean, float(stdtrit(size - 1, 1 - LEVEL / 2)) * spread / math.sqrt(size))


def _deviation(values: Sequence[float], mean: float) -> float:
    """Return the sample standard deviation."""
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def paired_test(values: Sequence[float], reference: Sequence[float]) -> PairedTest:
    """Return the test of a zero mean difference over seeds: t = mean sqrt(n) / s, n - 1 degrees.

    Differences that are all equal have p 0, or p 1 if they are zero; their effect is None. So is
    the effect of two seeds, for which Hedges' factor is 0.

    Args:
        values: The method's values, one per seed.
        reference: The reference's values, in the same order.
    """
    differences = [a - b for a, b in zip(values, reference, strict=True)]
    size = len(differences)
    found = interval(differences)
    if size < 2:
        return PairedTest(size, found, None, None)
    spread = _deviation(differences, found.mean)
    if spread < ROUNDING:
        return PairedTest(size, found, float(abs(found.mean) < ROUNDING), None)
    from scipy.special import stdtr

    t = found.mean * math.sqrt(size) / spread
    hedges = 1 - 3 / (4 * (size - 1) - 1)
    effect = hedges * found.mean / spread if size > 2 else None
    return PairedTest(size, found, 2 * float(stdtr(size - 1, -abs(t))), effect)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's corrected p values: the i-th smallest of m, times m - i + 1, made monotone."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    corrected, highest = [0.0] * len(p_values), 0.0
    for rank, position in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[position]))
        corrected[position] = highest
    return corrected
