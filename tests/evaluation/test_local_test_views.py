"""The clients' local tests: closed forms against explicit, enumerated test sets."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from fedlt.data.shots import ShotGroups, cumulative_groups
from fedlt.errors import FedltError
from fedlt.evaluation.local_test import (
    REFERENCE_WARNING,
    cap_images,
    draw_images,
    evaluated_clients,
    floor_counts,
    local_test,
    proportional_counts,
)


def test_exact_weights_are_the_training_mix():
    view = local_test([[3, 1, 0], [0, 0, 0]], [10, 10, 10])
    np.testing.assert_array_equal(view.weights, [[0.75, 0.25, 0], [0, 0, 0]])
    np.testing.assert_array_equal(view.scored_images, [[10, 10, 10]] * 2)
    assert view.num_clients == 2
    assert view.test_mask(0) is None
    assert draw_images(view, 0, [0, 1, 2]) is None
    shots = ShotGroups("rank", (0,), (1,), (2,))
    assert view.groups(0, shots) is shots


def test_a_class_without_test_images_weighs_nothing():
    """Class 1 has no test image: the client's mix 2:2:4 becomes 2:0:4."""
    for scheme in ("exact", "sampled", "reference"):
        view = local_test([[2, 2, 4]], [4, 0, 4], scheme=scheme)
        np.testing.assert_allclose(view.weights, [[1 / 3, 0, 2 / 3]])


def test_proportional_counts_by_hand():
    """Mix 5:3:2, pool 10 each: M = floor(min(10/.5, 10/.3, 10/.2)) = 20, shared 10, 6, 4.

    Mix 2:1, pool 5: M = floor(min(7.5, 15)) = 7; shares 4.67, 2.33: floors 4, 2, one left to
    the larger remainder: 5, 2. Mix 1:1:1 with pool 1, 5, 5: M = 3, one each.
    """
    assert proportional_counts([5, 3, 2], [10, 10, 10], seed=1).tolist() == [10, 6, 4]
    assert proportional_counts([2, 1], [5, 5], seed=1).tolist() == [5, 2]
    assert proportional_counts([1, 1, 1], [1, 5, 5], seed=1).tolist() == [1, 1, 1]
    assert proportional_counts([0, 0], [5, 5], seed=1).tolist() == [0, 0]


def test_proportional_counts_never_exceed_the_pool_and_stay_within_one_of_the_mix():
    rng = np.random.default_rng(1)
    for _ in range(200):
        counts, pool = rng.integers(0, 50, size=7), rng.integers(1, 30, size=7)
        drawn = proportional_counts(counts, pool, seed=1)
        if not counts.sum():
            continue
        mix = counts / counts.sum()
        assert (drawn <= pool).all()
        assert (np.abs(drawn - mix * drawn.sum()) < 1).all()
        held = counts > 0
        assert drawn.sum() == np.floor((pool[held] / mix[held]).min() + 1e-9)


def test_sampled_draws_are_keyed_distinct_and_in_proportion():
    labels = np.arange(60) % 3
    view = local_test([[4, 2, 0], [1, 1, 1]], [20, 20, 20], scheme="sampled", seed=5)
    drawn = draw_images(view, 0, labels)
    assert len(set(drawn.tolist())) == len(drawn) == 30
    assert np.bincount(labels[drawn], minlength=3).tolist() == [20, 10, 0]
    np.testing.assert_array_equal(view.scored_images, view.local_counts)
    np.testing.assert_array_equal(drawn, np.sort(drawn))
    np.testing.assert_array_equal(drawn, draw_images(view, 0, labels))
    other = local_test([[4, 2, 0], [1, 1, 1]], [20, 20, 20], scheme="sampled", seed=6)
    assert not np.array_equal(drawn, draw_images(other, 0, labels))


def test_closed_form_is_the_mean_over_every_possible_sampled_test():
    """Pool 3 images a class, mix 2:1 drawn as 3 of class 0... enumerated for m = (2, 1).

    Correct flags (1, 1, 0) and (0, 0, 1): recalls 2/3 and 1/3. Closed form (2 * 2/3 + 1/3) / 3 =
    5/9. Mean over all C(3,2) * C(3,1) = 9 explicit tests of three images must be the same.
    """
    first, second = (1, 1, 0), (0, 0, 1)
    tests = itertools.product(itertools.combinations(first, 2), itertools.combinations(second, 1))
    accuracies = [sum(a + b) / 3 for a, b in tests]
    assert len(accuracies) == 9
    view = local_test([[2, 1]], [3, 3])
    closed = float(view.weights[0] @ np.array([2 / 3, 1 / 3]))
    assert closed == pytest.approx(np.mean(accuracies)) == pytest.approx(5 / 9)


def test_reference_floors_caps_and_masks():
    """T = 20, N = 24: t = floor(20 n / 24). 18 -> 15, capped at the pool 10; 1 -> 0; 5 -> 4."""
    assert floor_counts([[18, 1], [0, 5]], 20).tolist() == [[15, 0], [0, 4]]
    view = local_test([[18, 1], [0, 5]], [10, 10], scheme="reference")
    assert view.local_counts.tolist() == [[10, 0], [0, 4]]
    np.testing.assert_array_equal(view.weights, [[1, 0], [0, 1]])
    assert view.test_mask(0).tolist() == [True, False]
    assert "test labels" in REFERENCE_WARNING


def test_reference_groups_are_each_clients_own():
    """T = N = 240, so t = n: client 0 has 76, 20, 4 % of its images in the classes, 1 reversed."""
    counts = [[76, 20, 4], [4, 20, 76], [0, 40, 0]]
    view = local_test(counts, [80, 80, 80], scheme="reference")
    run = ShotGroups("rank", (0,), (1,), (2,))
    assert [view.groups(k, run).many for k in range(2)] == [(0,), (2,)]
    assert view.groups(0, run) == cumulative_groups(view.local_counts[0])


def test_unknown_view_names_the_nearest():
    with pytest.raises(FedltError, match=r"evaluate.local_test.*'exakt'; nearest: 'exact'"):
        local_test([[1]], [1], scheme="exakt")


# Goldens of FedLoGe's protocol at its seed 3407: (C, n_max, IF, alpha, K, first client sizes,
# images in all local tests before the cap, sizes of 75 / 95 % groups of the summed local tests).
PROTOCOL = [
    (100, 500, 100, 0.5, 40, (264, 285, 233, 378, 283), 8636, (25, 25, 50)),
    (100, 500, 100, 0.5, 20, (573, 766, 469, 733, 726), 9199, (27, 26, 47)),
    (100, 500, 50, 0.5, 20, (557, 682, 644, 784, 649), 9261, (31, 31, 38)),
    (10, 5000, 50, 0.5, 40, (226, 200, 143, 400, 329), 9850, (4, 3, 3)),
    (10, 5000, 100, 0.5, 40, (215, 141, 207, 171, 243), 9829, (3, 3, 4)),
]


def protocol_counts(c, largest, factor, alpha, clients):
    """FedLoGe's partition: binomial, then per class a Dirichlet row and one draw per image."""
    rng = np.random.RandomState(3407)
    rng.binomial(1, 1, (clients, c))
    counts = np.zeros((clients, c), dtype=np.int64)
    for k in range(c):
        size = int(largest * (1 / factor) ** (k / (c - 1)))
        owners = rng.choice(clients, size, p=rng.dirichlet([alpha] * clients))
        counts[:, k] = np.bincount(owners, minlength=clients)
    return counts


@pytest.mark.parametrize(
    ("c", "largest", "factor", "alpha", "k", "first", "total", "hmt"), PROTOCOL
)
def test_reference_protocol_goldens(c, largest, factor, alpha, k, first, total, hmt):
    counts = protocol_counts(c, largest, factor, alpha, k)
    assert tuple(counts.sum(axis=1)[:5]) == first
    tests = floor_counts(counts, 10_000)
    assert int(tests.sum()) == total
    assert tuple(len(g) for _, g in cumulative_groups(tests.sum(axis=0)).items()) == hmt
    view = local_test(counts, np.full(c, 10_000 // c), scheme="reference")
    np.testing.assert_array_equal(view.local_counts, np.minimum(tests, 10_000 // c))


def test_cap_images_is_keyed_and_sorted():
    labels = np.array([0, 1, 0, 1, 0, 2])
    chosen = cap_images(labels, 2, seed=3)
    assert np.bincount(labels[chosen]).tolist() == [2, 2, 1]
    np.testing.assert_array_equal(chosen, np.unique(chosen))
    np.testing.assert_array_equal(chosen, cap_images(labels, 2, seed=3))


def test_evaluated_clients():
    assert evaluated_clients(4, "all", seed=1).tolist() == [0, 1, 2, 3]
    assert evaluated_clients(4, 9, seed=1).tolist() == [0, 1, 2, 3]
    some = evaluated_clients(50, 7, seed=1)
    assert len(set(some.tolist())) == 7
    assert some.tolist() == sorted(some.tolist())
    assert some.tolist() == evaluated_clients(50, 7, seed=1).tolist()
    assert some.tolist() != evaluated_clients(50, 7, seed=2).tolist()
