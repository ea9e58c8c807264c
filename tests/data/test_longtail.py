"""Long-tail profiles and the canonical subset: published totals, and independent recipes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedlt.data.longtail import canonical_subset, class_ranks, class_sizes, long_tail
from fedlt.errors import FedltError

LISTS = Path(__file__).resolve().parents[2] / "../shared/data/splits/cifar_lt_indices.npz"


@pytest.mark.parametrize(
    ("n_max", "num_classes", "totals"),
    [
        (5000, 10, {10: 20431, 50: 13996, 100: 12406, 200: 11203}),
        (500, 100, {10: 19573, 50: 12608, 100: 10847, 200: 9502}),
    ],
)
def test_totals_are_those_of_cifar_lt(n_max, num_classes, totals):
    for factor, total in totals.items():
        sizes = class_sizes("exponential", n_max, factor, num_classes)
        assert sizes.sum() == total
        assert sizes[0] == n_max
        assert sizes[-1] == n_max // factor
        assert (np.diff(sizes) <= 0).all()


def test_cifar100_at_100_starts_and_ends_as_published():
    sizes = class_sizes("exponential", 500, 100, 100)
    assert sizes[:3].tolist() == [500, 477, 455]
    assert sizes[-3:].tolist() == [5, 5, 5]


def test_step_has_two_sizes():
    assert class_sizes("step", 100, 10, 4).tolist() == [100, 100, 10, 10]
    assert class_sizes("step", 100, 3, 5).tolist() == [100, 100, 33, 33, 33]


@pytest.mark.parametrize("profile", ["exponential", "step"])
def test_factor_one_is_balanced(profile):
    assert class_sizes(profile, 7, 1, 3).tolist() == [7, 7, 7]


@pytest.mark.parametrize(
    ("profile", "factor", "message"),
    [
        ("exponential", 0.01, "below 1"),
        ("exponential", float("nan"), "not finite"),
        ("exponential", float("inf"), "not finite"),
        ("step", 8, "leaves a class without images.*at most 7"),
        ("exponential", 8, "at most 7"),
        ("exponental", 2, "nearest: 'exponential'"),
    ],
)
def test_bad_profiles_are_refused(profile, factor, message):
    with pytest.raises(FedltError, match=message):
        class_sizes(profile, 7, factor, 4)


def test_the_largest_factor_named_works():
    assert class_sizes("exponential", 7, 7, 4)[-1] == 1


def test_the_subset_follows_the_published_recipe_step_by_step():
    """LDAM's recipe with NumPy's global generator, written out."""
    labels = np.random.default_rng(5).integers(0, 3, 60)
    state = np.random.get_state()
    np.random.seed(0)
    expected = []
    for label, count in enumerate([5, 3, 2]):
        indices = np.where(labels == label)[0]
        np.random.shuffle(indices)
        expected.extend(indices[:count])
    np.random.set_state(state)
    assert canonical_subset(labels, np.array([5, 3, 2])).tolist() == expected


@pytest.mark.skipif(not LISTS.exists(), reason="shared data not here")
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_the_published_lists_are_nested_as_ours_are(name):
    """Without the images: the number of each list, and that a smaller one lies in a larger one."""
    lists = np.load(LISTS)
    classes, n_max = (10, 5000) if name == "cifar10" else (100, 500)
    starts = np.cumsum([0, *class_sizes("exponential", n_max, 10, classes)[:-1]])
    for factor in (10, 50, 100, 200):
        sizes = class_sizes("exponential", n_max, factor, classes)
        inside = np.concatenate(
            [lists[f"{name}_if10"][a : a + n] for a, n in zip(starts, sizes, strict=True)]
        )
        np.testing.assert_array_equal(lists[f"{name}_if{factor}"], inside)


def test_smaller_lists_lie_inside_larger_ones():
    labels = np.arange(300) % 3
    options = {"profile": "exponential", "class_order": "natural", "seed": 1}
    large = long_tail(labels, 3, imbalance_factor=2, **options)
    small = long_tail(labels, 3, imbalance_factor=20, **options)
    assert set(small) < set(large)
    assert len(set(large)) == len(large)


def test_the_largest_class_has_as_many_as_the_smallest_of_the_pool():
    labels = np.repeat([0, 1, 2], [30, 20, 40])
    drawn = long_tail(
        labels, 3, imbalance_factor=4, profile="exponential", class_order="natural", seed=1
    )
    assert np.bincount(labels[drawn]).tolist() == [20, 10, 5]


def test_shuffled_order_permutes_the_sizes_by_seed_only():
    labels = np.repeat(np.arange(10), 50)
    options = {"imbalance_factor": 10, "profile": "exponential", "class_order": "shuffled"}
    counts = [
        np.bincount(labels[long_tail(labels, 10, seed=seed, **options)]) for seed in (1, 1, 2)
    ]
    sizes = class_sizes("exponential", 50, 10, 10)
    assert counts[0].tolist() == counts[1].tolist() != counts[2].tolist()
    assert sorted(counts[2]) == sorted(sizes)
    assert counts[0].tolist() == sizes[class_ranks(10, "shuffled", 1)].tolist()


def test_an_unknown_class_order_is_refused():
    with pytest.raises(FedltError, match="nearest: 'shuffled'"):
        class_ranks(10, "shufled", 1)
