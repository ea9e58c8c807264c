"""The images held out by `tune`."""

from __future__ import annotations

import numpy as np
import pytest

from fedlt.data.splits import hold_out, validation_sizes
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
    assert validation_sizes(counts, 15, long_tailed=False).tolist() == [15] * 3
    assert validation_sizes(counts, None, long_tailed=False).tolist() == [3] * 3
    assert validation_sizes(np.array([5, 9]), None, long_tailed=False).tolist() == [1, 1]


def test_a_natural_long_tail_gives_a_tenth_of_each_class_of_at_least_five():
    """By hand: 400 -> 40, 39 -> 3, 19 and 10 -> 1, 9 and 5 -> max(1, 0) = 1, 4 and 1 -> 0."""
    counts = np.array([400, 39, 19, 10, 9, 5, 4, 1])
    expected = [40, 3, 1, 1, 1, 1, 0, 0]
    assert validation_sizes(counts, None, long_tailed=True).tolist() == expected
    assert validation_sizes(counts, 2, long_tailed=True).tolist() == [2] * 8  # its own number
    labels = np.repeat(np.arange(8), counts)
    held, rest = hold_out(labels, 8, np.array(expected))
    assert np.bincount(labels[held], minlength=8).tolist() == expected
    assert sorted([*held, *rest]) == list(range(len(labels)))
    with pytest.raises(
        FedltError, match="class of at least 5 images; the largest class here has 4"
    ):
        validation_sizes(np.array([4, 1]), None, long_tailed=True)
    with pytest.raises(FedltError, match="2 images a class, but class 7 has 1"):
        hold_out(labels, 8, 2)
