"""The images held out by `tune`."""

from __future__ import annotations

import numpy as np
import pytest

from fedlt.data.splits import hold_out, validation_size
from fedlt.errors import FedltError


def test_held_out_and_rest_share_nothing_and_lose_nothing():
    labels = np.random.default_rng(0).integers(0, 4, 200)
    held, rest = hold_out(labels, 4, 9)
    assert np.bincount(labels[held]).tolist() == [9] * 4
    assert sorted([*held, *rest]) == list(range(200))
    assert (np.diff(held) > 0).all()
    assert (np.diff(rest) > 0).all()


def test_the_draw_is_fixed():
    """Class 0 of 5 images under RandomState(1): permutation 2 1 4 0 3, of which two are taken."""
    held, _ = hold_out(np.zeros(5, np.int64), 1, 2)
    assert held.tolist() == sorted(np.random.RandomState(1).permutation(5)[:2]) == [1, 2]


def test_a_class_keeps_at_least_one_image():
    with pytest.raises(FedltError, match="3 images a class, but class 1 has 3"):
        hold_out(np.array([0] * 9 + [1] * 3), 2, 3)


def test_the_number_is_the_data_sets_own_or_a_tenth_of_the_smallest_class():
    counts = np.array([124, 133, 39])
    assert validation_size(counts, 15) == 15
    assert validation_size(counts, None) == 3
    assert validation_size(np.array([5, 9]), None) == 1
