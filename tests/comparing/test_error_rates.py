"""How often the procedure is wrong, and how often it finds what is there, by simulation.

A table of synthetic figures per seed: a seed shifts all rows alike (its partition), a row adds its
own noise. ``tables`` such tables without any difference are judged; the number of tables with a
wrong verdict is binomial. Limits are quantiles of that binomial at 1e-6, so a correct procedure
fails here once in a million changes of the random numbers.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from fedlt.comparing.statistics import LEVEL, paired_test
from fedlt.comparing.verdicts import MIN_SEEDS, judge

TABLES = 1500
RARE = 1e-6


def figures(rng, rows, seeds, *, noise=0.01):
    """Return (rows, seeds) accuracies: a common shift a seed, noise a cell."""
    return 0.8 + rng.normal(0, 0.03, seeds) + rng.normal(0, noise, (rows, seeds))


def words(accuracies):
    """Judge every row against the first one."""
    rows = accuracies.tolist()
    return [word for word, _ in judge([paired_test(row, rows[0]) for row in rows[1:]])]


@pytest.mark.parametrize("seeds", [5, 10])
def test_the_same_method_twice_is_called_different_in_5_percent(seeds):
    """One comparison of normal figures: the rate is exactly the level."""
    rng = np.random.default_rng(seeds)
    wrong = sum(words(figures(rng, 2, seeds)) != ["not different"] for _ in range(TABLES))
    low, high = stats.binom.ppf([RARE, 1 - RARE], TABLES, LEVEL)
    assert low <= wrong <= high, wrong / TABLES


@pytest.mark.parametrize("seeds", [5, 10])
def test_a_table_of_five_equal_methods_has_a_wrong_verdict_in_at_most_5_percent(seeds):
    """Four comparisons that share a reference; Holm bounds the rate by the level."""
    rng = np.random.default_rng(10 + seeds)
    drawn = [words(figures(rng, 5, seeds)) for _ in range(TABLES)]
    wrong = sum(set(own) != {"not different"} for own in drawn)
    uncorrected = 1 - (1 - LEVEL) ** 4
    assert wrong <= stats.binom.ppf(1 - RARE, TABLES, LEVEL), wrong / TABLES
    assert wrong >= stats.binom.ppf(RARE, TABLES, LEVEL / 4)  # it is not silent either
    assert stats.binom.ppf(1 - RARE, TABLES, LEVEL) < stats.binom.ppf(RARE, TABLES, uncorrected)


def test_accuracies_counted_on_few_images_keep_the_level():
    """500 test images and 5 seeds: binomial figures, not normal ones."""
    rng = np.random.default_rng(20)
    shares = np.clip(rng.normal(0.9, 0.02, (TABLES, 1, 5)), 0, 1)
    counted = rng.binomial(500, shares, (TABLES, 2, 5)) / 500
    wrong = sum(words(one) != ["not different"] for one in counted)
    assert wrong <= stats.binom.ppf(1 - RARE, TABLES, 1.2 * LEVEL), wrong / TABLES


def test_a_planted_difference_is_found_as_often_as_theory_says():
    """Row 2 is 2 s better, s the deviation of a difference, 10 seeds, 4 comparisons.

    Holm is at least as strong as Bonferroni, whose power is that of a noncentral t.
    """
    rng = np.random.default_rng(30)
    noise, seeds = 0.01, 10
    planted = np.zeros((5, 1))
    planted[2] = 2 * np.sqrt(2) * noise
    found = [words(figures(rng, 5, seeds, noise=noise) + planted)[1] for _ in range(400)]
    limit = stats.t.ppf(1 - LEVEL / 8, seeds - 1)
    power = stats.nct.sf(limit, seeds - 1, 2 * np.sqrt(seeds))
    assert power > 0.95
    assert found.count("better") >= stats.binom.ppf(RARE, 400, power)
    assert "worse" not in found


def test_under_five_seeds_nothing_is_said_however_large_the_difference():
    rng = np.random.default_rng(40)
    for seeds in range(1, MIN_SEEDS):
        apart = figures(rng, 3, seeds) + np.array([[0.0], [0.3], [-0.3]])
        assert words(apart) == ["undecided"] * 2
    apart = figures(rng, 3, MIN_SEEDS) + np.array([[0.0], [0.3], [-0.3]])
    assert words(apart) == ["better", "worse"]
