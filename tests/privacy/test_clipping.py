"""Clipping and the rules of the norm, by hand and by the numbers of Andrew et al."""

from __future__ import annotations

import math

import pytest
import torch

from fedlt.privacy.clipping import Tradeoff, clip_factor, quantile_norm, update_noise


def test_vectors_are_brought_inside_the_norm():
    long, short = torch.tensor([3.0, 4.0]), torch.tensor([0.3, 0.4])
    found = [v * clip_factor(float(v.norm()), 1.0) for v in (long, short)]
    assert torch.allclose(found[0], torch.tensor([0.6, 0.8]))
    assert torch.equal(found[1], short)
    assert torch.allclose(torch.stack(found).mean(0), torch.tensor([0.45, 0.6]))
    assert clip_factor(0.0, 1.0) == 1.0
    assert clip_factor(5.0, None) == 1.0


@pytest.mark.parametrize(
    ("inside", "expected"), [(0, 1.105170918), (1, 0.904837418), (0.75, 0.951229425)]
)
def test_a_step_of_the_quantile_rule(inside, expected):
    assert quantile_norm(1.0, inside, target=0.5, lr=0.2) == pytest.approx(expected, abs=1e-9)


def test_the_quantile_rule_stays_near_constant_norms():
    norm, seen = 1.0, []
    for _ in range(60):
        norm = quantile_norm(norm, float(norm >= 2.0), target=0.5, lr=0.2)
        seen.append(norm)
    crossed = next(n for n, value in enumerate(seen) if value >= 2.0)
    assert seen[: crossed + 1] == sorted(seen[: crossed + 1])
    factor = math.exp(0.1)
    assert all(2 / factor <= value <= 2 * factor for value in seen[crossed:])


@pytest.mark.parametrize(
    ("noise", "count", "expected"),
    [(1, 1, 1.154700538), (1, 0.6, 1.809068067), (0.5, 0.5, 0.577350269)],
)
def test_counts_take_a_part_of_the_noise(noise, count, expected):
    assert update_noise(noise, count, 1) == pytest.approx(expected, abs=1e-9)


def test_counts_with_too_little_noise_are_refused():
    with pytest.raises(ValueError, match=r"noise multiplier 1 needs .* above 0\.5"):
        update_noise(1, 0.5, 1)
    assert update_noise(1, 0.5, 0) == 1
    assert update_noise(0, 0.5, 1) == 0


def test_two_counts_spend_twice():
    """1 / z^2 = 1 / z_update^2 + 2 / (2 sigma)^2."""
    found = update_noise(1.0, 2.0, 2)
    assert 1 / found**2 + 2 / 16 == pytest.approx(1.0)


@pytest.mark.parametrize("start", [0.1, 5.0])
def test_the_tradeoff_ends_at_the_best_norm(start):
    """All norms a = 2: C* = a M^2 / (M^2 + kappa d z^2) = 2 * 100 / (100 + 100) = 1."""
    rule, norm = Tradeoff(noise=1.0, size=1000, members=10, kappa=0.1), start
    for _ in range(300):
        norm = rule.next_norm(norm, float(norm < 2), max(2 - norm, 0.0), first=start)
    assert norm == pytest.approx(1.0, rel=0.05)
