"""Intervals, paired tests and Holm's correction, against closed forms and scipy.stats."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from fedlt.comparing.statistics import holm, interval, paired_test

RNG = np.random.default_rng(0)


def test_the_interval_by_hand():
    """Values 1, 2, 3: mean 2, s = 1, t(2, 0.975) = 4.3027, half = 4.3027 / sqrt(3) = 2.4841."""
    found = interval([1.0, 2.0, 3.0])
    assert found.mean == 2.0
    assert found.half == pytest.approx(2.4841, abs=1e-4)
    assert interval([5.0]).half is None
    assert interval([5.0, 5.0]).half == 0.0


@pytest.mark.parametrize("size", [2, 5, 10])
def test_the_paired_test_is_that_of_scipy(size):
    a, b = RNG.normal(0.8, 0.02, size), RNG.normal(0.78, 0.02, size)
    found, wanted = paired_test(a.tolist(), b.tolist()), stats.ttest_rel(a, b)
    assert found.p == pytest.approx(wanted.pvalue, rel=1e-9)
    low, high = wanted.confidence_interval(0.95)
    assert found.difference.mean == pytest.approx((low + high) / 2)
    assert found.difference.half == pytest.approx((high - low) / 2)


def test_the_effect_size_by_hand():
    """Differences 1, 2, 3, 4, 5: mean 3, s = sqrt(2.5); Hedges' factor 1 - 3 / (4 * 4 - 1) = 0.8"""
    found = paired_test([1.0, 2, 3, 4, 5], [0.0] * 5)
    assert found.effect == pytest.approx(0.8 * 3 / math.sqrt(2.5))


def test_two_seeds_have_no_effect_size():
    """Hedges' factor of two differences is 1 - 3 / (4 * 1 - 1) = 0, of three 1 - 3 / 7 = 4 / 7."""
    assert paired_test([1.0, 3.0], [0.0, 0.0]).effect is None
    assert paired_test([1.0, 2.0, 3.0], [0.0] * 3).effect == pytest.approx(4 / 7 * 2)


def test_differences_without_spread():
    assert paired_test([0.5, 0.7], [0.5, 0.7]).p == 1.0
    constant = paired_test([0.94, 0.936, 0.97], [0.938, 0.934, 0.968])  # 0.002, up to rounding
    assert constant.p == 0.0
    assert constant.effect is None
    assert paired_test([0.5], [0.4]).p is None


def test_holm_by_hand():
    """Sorted .01 .02 .03 .4, times 4 3 2 1: .04 .06 .06 .4; a product below the last is raised."""
    assert holm([0.4, 0.02, 0.01, 0.03]) == pytest.approx([0.4, 0.06, 0.04, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
