"""Epsilon and noise against closed forms, and against the figures of other tools."""

from __future__ import annotations

import math

import pytest
from scipy.optimize import brentq
from scipy.special import logsumexp
from scipy.stats import norm

pytest.importorskip("dp_accounting")

from fedlt.errors import FedltError
from fedlt.privacy.accounting import (
    Release,
    epsilon,
    frontier,
    gaussian_delta,
    longest,
    solve_noise,
    tight_epsilon,
)

# q as (sample, population), z, T, delta -> epsilon by RDP and by PLD: computed with dp-accounting
# 0.6.0 by itself, and where q = 1 by the analytic Gaussian mechanism.
TABLE = [
    ((100, 100), 1, 1, 1e-5, 4.7285, 4.3772),
    pytest.param((100, 100), 1, 100, 1e-5, 96.1163, 91.8173, marks=pytest.mark.slow),
    ((100, 100), 4, 100, 1e-5, 14.1322, 13.2067),
    ((8, 20), 1, 200, 1e-5, 57.0707, 48.7222),
    ((8, 20), 1, 50, 1e-2, 15.0912, 12.2692),
    ((10, 100), 1, 100, 1e-5, 7.9039, 7.0466),
    ((10, 100), 1, 100, 1e-3, 5.6551, 4.7844),
    ((10, 1000), 1, 1000, 1e-5, 2.1014, 1.8282),
    ((10, 1000), 1.1, 10000, 1e-5, 5.6320, 5.1926),
    ((256, 60000), 1.1, 14100, 1e-5, 2.6003, 2.3852),
]


@pytest.mark.parametrize(("rate", "noise", "times", "delta", "rdp", "pld"), TABLE)
def test_the_table(rate, noise, times, delta, rdp, pld):
    release = Release(noise, *rate, "poisson")
    assert epsilon(release, times, delta) == pytest.approx(rdp, abs=1e-3)
    assert tight_epsilon(release, times, delta) == pytest.approx(pld, abs=1e-2)


@pytest.mark.parametrize(
    ("sample", "population", "noise", "times", "expected"),
    [
        (8, 20, 2, 200, 135.30),
        (8, 20, 4, 200, 43.53),
        (10, 100, 2, 100, 14.05),
        (100, 10000, 2, 1000, 3.5761),
    ],
)
def test_cohorts_of_a_fixed_size_need_twice_the_noise(sample, population, noise, times, expected):
    """A replaced member moves the sum by 2 C: the event has the multiplier z / 2."""
    release = Release(noise, sample, population, "fixed")
    assert epsilon(release, times, 1e-5) == pytest.approx(expected, abs=5e-3)
    assert tight_epsilon(release, times, 1e-5) is None


@pytest.mark.parametrize(
    ("noise", "times"), [(1, 1), pytest.param(1, 100, marks=pytest.mark.slow), (4, 100)]
)
def test_the_analytic_gaussian_mechanism(noise, times):
    """Balle and Wang's formula, solved here by its own root finder."""
    mu = math.sqrt(times) / noise

    def delta_of(eps):
        upper = norm.cdf(mu / 2 - eps / mu)
        return upper - math.exp(eps + norm.logcdf(-mu / 2 - eps / mu)) - 1e-5

    exact = brentq(delta_of, 1e-3, 1e3, xtol=1e-10)
    assert gaussian_delta(mu, exact) == pytest.approx(1e-5, rel=1e-6)
    found = tight_epsilon(Release(noise, 5, 5, "poisson"), times, 1e-5)
    assert found == pytest.approx(exact, abs=1e-3)
    assert exact == pytest.approx(
        {(1, 1): 4.377178, (1, 100): 91.817290, (4, 100): 13.206712}[noise, times], abs=1e-6
    )


def renyi(order, rate, noise):
    """Mironov, Talwar and Zhang 2019: the sampled Gaussian at an integer order."""
    terms = [
        math.log(math.comb(order, k))
        + (order - k) * math.log1p(-rate)
        + k * math.log(rate)
        + (k * k - k) / (2 * noise**2)
        for k in range(order + 1)
    ]
    return logsumexp(terms) / (order - 1)


def test_renyi_divergences_by_the_formula():
    """Epsilon with integer orders alone is above the table's 7.9039, which has finer orders."""
    values = {order: renyi(order, 0.1, 1.0) for order in range(2, 64)}
    assert values[2] == pytest.approx(0.01703686, abs=1e-8)
    assert values[4] == pytest.approx(0.05867261, abs=1e-8)
    assert values[8] == pytest.approx(1.37836141, abs=1e-8)
    by_hand = min(
        100 * value + math.log1p(-1 / a) - math.log(1e-5 * a) / (a - 1)
        for a, value in values.items()
    )
    assert by_hand == pytest.approx(7.973, abs=1e-3)
    found = epsilon(Release(1.0, 10, 100, "poisson"), 100, 1e-5)
    assert by_hand - 0.1 < found <= by_hand


@pytest.mark.parametrize(
    ("rate", "times", "delta", "expected"),
    [
        ((10, 100), 100, 1e-3, {1: 3.1026, 8: 0.8443}),
        pytest.param(
            (10, 100), 100, 1e-3, {2: 1.8574, 4: 1.2036}, marks=pytest.mark.slow, id="q .1"
        ),
        pytest.param(
            (10, 1000),
            1000,
            1e-5,
            {1: 1.5131, 2: 1.0223, 4: 0.7776, 8: 0.6159},
            marks=pytest.mark.slow,
            id="q .01",
        ),
        pytest.param(
            (8, 20),
            200,
            1e-5,
            {1: 22.977, 2: 12.255, 4: 6.654, 8: 3.731},
            marks=pytest.mark.slow,
            id="q .4",
        ),
    ],
)
def test_the_noise_for_an_epsilon(rate, times, delta, expected):
    for target, noise in expected.items():
        found = solve_noise(lambda z: epsilon(Release(z, *rate, "poisson"), times, delta), target)
        assert found == pytest.approx(noise, rel=1e-4)


def test_epsilon_grows_with_rounds_and_rate_and_falls_with_noise():
    base = [epsilon(Release(1.0, 10, 100, "poisson"), t, 1e-5) for t in (0, 1, 10, 100)]
    assert base == sorted(base)
    assert base[0] == 0
    rates = [epsilon(Release(1.0, m, 100, "poisson"), 20, 1e-5) for m in (1, 10, 50, 100)]
    assert rates == sorted(rates)
    noises = [epsilon(Release(z, 10, 100, "poisson"), 20, 1e-5) for z in (0.5, 1, 2, 8)]
    assert noises == sorted(noises, reverse=True)
    assert epsilon(Release(0.0, 10, 100, "poisson"), 1, 1e-5) == math.inf


def test_no_noise_reaches_a_tiny_epsilon():
    with pytest.raises(FedltError, match=r"privacy\.target_epsilon: 1e-09 cannot be reached"):
        solve_noise(lambda z: 1 / z, 1e-9)


def test_the_longest_run_within_a_limit():
    assert longest(lambda t: t * 1.0, 3.5, 10) == 3
    assert longest(lambda t: t * 1.0, 0.5, 10) == 0
    assert longest(lambda t: t * 1.0, 99, 10) == 10


def test_pairs_that_no_other_exceeds():
    pairs = [(0.1, 5), (0.2, 5), (0.2, 3), (0.05, 9), (0.05, 2)]
    assert frontier(pairs) == [(0.2, 5), (0.05, 9)]


def test_a_missing_accountant_is_a_line_before_anything_runs(lab, monkeypatch):
    import sys

    from fedlt.privacy import accounting

    accounting._rdp.cache_clear()
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    own = {"norm": 0.5, "noise_multiplier": 1.0, "delta": 1e-2}
    with pytest.raises(FedltError, match=r'needs dp-accounting: pip install "fedlt\[dp\]"'):
        lab.federation(model={"name": "mlp", "norm": "none"}, privacy=own).view.privacy  # noqa: B018
