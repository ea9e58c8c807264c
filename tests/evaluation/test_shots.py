"""Shot groups against hand-made lists and the recorded sizes of FedLoGe's four data settings."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fedlt.errors import FedltError
from fedlt.evaluation.shots import ShotGroups, cumulative_groups, shot_groups


def long_tail(num_classes, largest, imbalance_factor):
    """int(n_max * IF^(-c / (C-1))), the exponential profile in class order."""
    rate = 1 / imbalance_factor
    return [int(largest * rate ** (c / (num_classes - 1))) for c in range(num_classes)]


def sizes(groups):
    return tuple(len(classes) for _, classes in groups.items())


# (C, n_max, IF, total images, cumulative sizes, count sizes): published goldens of the protocol.
GOLDENS = [
    (10, 5000, 50, 13996, (4, 3, 3), (9, 1, 0)),
    (10, 5000, 100, 12406, (3, 3, 4), (8, 2, 0)),
    (100, 500, 50, 12608, (34, 34, 32), (41, 41, 18)),
    (100, 500, 100, 10847, (30, 31, 39), (35, 35, 30)),
]


@pytest.mark.parametrize(("c", "largest", "factor", "total", "cumulative", "count"), GOLDENS)
def test_golden_group_sizes(c, largest, factor, total, cumulative, count):
    counts = long_tail(c, largest, factor)
    assert sum(counts) == total
    groups = shot_groups(counts, scheme="cumulative", imbalance_factor=factor)
    assert sizes(groups) == cumulative
    assert groups == cumulative_groups(counts)
    assert sizes(shot_groups(counts, scheme="count", imbalance_factor=factor)) == count


def test_count_thresholds_are_inclusive_for_medium():
    groups = shot_groups([101, 100, 20, 19], scheme="count", imbalance_factor=5)
    assert groups == ShotGroups("count", many=(0,), medium=(1, 2), few=(3,))


def test_auto_takes_counts_where_each_group_holds_a_tenth_of_the_classes():
    """CIFAR-100 at 100 is 35/35/30: counts. CIFAR-10 at 100 is 8/2/0: rank, 3/4/3."""
    wide = shot_groups(long_tail(100, 500, 100), imbalance_factor=100)
    assert (wide.scheme, sizes(wide)) == ("count", (35, 35, 30))
    narrow = shot_groups(long_tail(10, 5000, 100), imbalance_factor=100)
    assert narrow == ShotGroups("rank", (0, 1, 2), (3, 4, 5, 6), (7, 8, 9))


def test_auto_needs_exactly_ten_percent():
    """20 classes: 2 few-classes are 10 % (counts), 1 is 5 % (rank)."""
    enough = shot_groups([200] * 9 + [50] * 9 + [5] * 2, imbalance_factor=40)
    assert (enough.scheme, sizes(enough)) == ("count", (9, 9, 2))
    short = shot_groups([200] * 9 + [50] * 10 + [5], imbalance_factor=40)
    assert (short.scheme, sizes(short)) == ("rank", (6, 8, 6))


def test_rank_sorts_by_count_and_breaks_ties_by_class_id():
    """By count: 4 (9), then 0, 2, 3 (7 each, by id), 1 (5). round(0.3 * 5) = round(1.5) = 2."""
    groups = shot_groups([7, 5, 7, 7, 9], scheme="rank", imbalance_factor=2)
    assert groups == ShotGroups("rank", many=(0, 4), medium=(2,), few=(1, 3))


def test_step_has_no_medium_whatever_the_scheme():
    for scheme in ("auto", "count", "rank", "cumulative"):
        groups = shot_groups([50, 500, 50, 500], scheme=scheme, profile="step", imbalance_factor=10)
        assert groups == ShotGroups("step", many=(1, 3), medium=(), few=(0, 2))


def test_imbalance_factor_one_has_no_groups():
    assert shot_groups([180, 178, 181], imbalance_factor=1) == ShotGroups("none")


def test_cumulative_takes_the_class_that_passes_the_threshold():
    """Shares 75, 20, 5 %: 75 % is reached, not passed, at the first class, so many has two."""
    assert cumulative_groups([75, 20, 5]) == ShotGroups("cumulative", (0, 1), (2,), ())
    assert cumulative_groups([76, 20, 4]) == ShotGroups("cumulative", (0,), (1,), (2,))
    assert cumulative_groups([0, 0]) == ShotGroups("cumulative")


def test_groups_partition_the_classes():
    rng = np.random.default_rng(0)
    for scheme in ("count", "rank", "cumulative", "auto"):
        counts = rng.integers(1, 300, size=37)
        groups = shot_groups(counts, scheme=scheme, imbalance_factor=300)
        assert sorted(c for _, classes in groups.items() for c in classes) == list(range(37))


def test_json_round_trip():
    groups = shot_groups(long_tail(10, 5000, 50), imbalance_factor=50)
    assert ShotGroups.from_json(json.loads(json.dumps(groups.to_json()))) == groups


def test_unknown_scheme_names_the_nearest():
    with pytest.raises(FedltError, match=r"evaluate.shots.*'ranks'; nearest: 'rank'"):
        shot_groups([1, 2], scheme="ranks", imbalance_factor=2)
