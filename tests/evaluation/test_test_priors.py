"""Accuracy under shifted test priors, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from fedlt.errors import FedltError
from fedlt.evaluation.priors import accuracy_under, shifted_prior

COUNTS = [10, 1000, 100]  # ranks 2, 0, 1


def test_priors_by_hand():
    """IF 100, three ranks: 1, 1/10, 1/100 over 1.11, laid out by rank; backward reverses ranks."""
    forward = shifted_prior(COUNTS, direction="forward", imbalance_factor=100)
    np.testing.assert_allclose(forward, np.array([0.01, 1, 0.1]) / 1.11)
    backward = shifted_prior(COUNTS, direction="backward", imbalance_factor=100)
    np.testing.assert_allclose(backward, np.array([1, 0.01, 0.1]) / 1.11)
    uniform = shifted_prior(COUNTS, direction="uniform", imbalance_factor=100)
    np.testing.assert_allclose(uniform, [1 / 3] * 3)


def test_accuracy_under_equals_an_explicit_reweighting():
    """Recalls .5, 1, .25 under (.2, .5, .3): .1 + .5 + .075. Uniform: mean of recalls."""
    confusion = np.array([[2, 2, 0], [0, 4, 0], [3, 0, 1]])
    assert accuracy_under(confusion, [0.2, 0.5, 0.3]) == pytest.approx(0.675)
    uniform = shifted_prior(COUNTS, direction="uniform")
    assert accuracy_under(confusion, uniform) == pytest.approx(7 / 12)


def test_unknown_direction():
    with pytest.raises(FedltError, match="nearest: 'forward'"):
        shifted_prior(COUNTS, direction="forwards")
