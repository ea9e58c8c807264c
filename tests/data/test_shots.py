"""Shot groups against hand-made lists and the recorded sizes of FedLoGe's four data settings."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fedlt.data.shots import ShotGroups, cumulative_groups, groups_note, shot_groups
from fedlt.errors import FedltError


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
    groups = shot_groups(counts, scheme="cumulative")
    assert sizes(groups) == cumulative
    assert groups == cumulative_groups(counts)
    assert sizes(shot_groups(counts, scheme="count")) == count


def test_count_thresholds_are_inclusive_for_medium():
    groups = shot_groups([101, 100, 20, 19], scheme="count")
    assert groups == ShotGroups("count", many=(0,), medium=(1, 2), few=(3,))


def test_auto_takes_counts_where_each_group_holds_a_tenth_of_the_classes():
    """CIFAR-100 at 100 is 35/35/30: counts. CIFAR-10 at 100 is 8/2/0: rank, 3/4/3."""
    wide = shot_groups(long_tail(100, 500, 100))
    assert (wide.scheme, sizes(wide)) == ("count", (35, 35, 30))
    narrow = shot_groups(long_tail(10, 5000, 100))
    assert narrow == ShotGroups("rank", (0, 1, 2), (3, 4, 5, 6), (7, 8, 9))


def test_auto_needs_exactly_ten_percent():
    """20 classes: 2 few-classes are 10 % (counts), 1 is 5 % (rank)."""
    enough = shot_groups([200] * 9 + [50] * 9 + [5] * 2)
    assert (enough.scheme, sizes(enough)) == ("count", (9, 9, 2))
    short = shot_groups([200] * 9 + [50] * 10 + [5])
    assert (short.scheme, sizes(short)) == ("rank", (6, 8, 6))


def test_rank_sorts_by_count_and_breaks_ties_by_class_id():
    """By count: 4 (9), then 0, 2, 3 (7 each, by id), 1 (5). round(0.3 * 5) = round(1.5) = 2."""
    groups = shot_groups([7, 5, 7, 7, 9], scheme="rank")
    assert groups == ShotGroups("rank", many=(0, 4), medium=(2,), few=(1, 3))


def test_two_sizes_are_a_step_without_medium():
    assert shot_groups([50, 500, 50, 500]) == ShotGroups("step", (1, 3), (), (0, 2))
    assert shot_groups([90, 60]) == ShotGroups("step", (0,), (), (1,))


@pytest.mark.parametrize(
    ("counts", "scheme"),
    [
        ([149, 120, 100], "none"),
        ([150, 120, 100], "rank"),
        ([180, 178, 181], "none"),
        ([180] * 3, "none"),
        ([3, 2], "step"),
        ([1, 1], "none"),
    ],
)
def test_auto_makes_groups_from_a_ratio_of_one_and_a_half(counts, scheme):
    """150 = 1.5 x 100 is enough, 149 is not."""
    assert shot_groups(counts).scheme == scheme


def test_an_explicit_scheme_is_obeyed_on_balanced_data():
    """180 > 100 images: all are many. 181, 180, 178: the ranks are classes 2, 0, 1."""
    assert shot_groups([180, 178, 181], scheme="count") == ShotGroups("count", (0, 1, 2))
    assert shot_groups([180] * 3, scheme="count") == ShotGroups("count", (0, 1, 2))
    assert shot_groups([180, 178, 181], scheme="rank") == ShotGroups("rank", (2,), (0,), (1,))
    lists = {"many": [0], "few": [2, 1]}
    assert shot_groups([180] * 3, scheme="given", given=lists) == ShotGroups(
        "given", (0,), (), (1, 2)
    )


def test_an_explicit_scheme_is_obeyed_on_a_step():
    """500 > 100 and 20 <= 50 <= 100, so no class is few by count."""
    assert shot_groups([50, 500, 50, 500], scheme="count") == ShotGroups("count", (1, 3), (0, 2))
    assert shot_groups([9, 5], scheme="rank") == ShotGroups("rank", (0,), (), (1,))


@pytest.mark.parametrize("scheme", ["rank", "cumulative"])
@pytest.mark.parametrize("counts", [[124] * 10, [124] * 5 + [6] * 5])
def test_an_order_by_class_id_alone_is_refused(counts, scheme):
    words = "124" if min(counts) == 124 else "6 or 124"
    with pytest.raises(FedltError, match=f"shots: {scheme} would .* has {words} training images"):
        shot_groups(counts, scheme=scheme)


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"few": [4]}, "there is no class 4, only 0 to 3"),
        ({"many": [0, 1], "few": [2, 1]}, "class 1 is named twice"),
        ({"few": [2, 2]}, "class 2 is named twice"),
        ({"many": []}, "no class is named"),
    ],
)
def test_bad_lists_are_refused(lists, message):
    with pytest.raises(FedltError, match=f"evaluate.shot_classes: {message}"):
        shot_groups([9, 8, 3, 1], scheme="given", given=lists)


def test_the_note_says_which_groups_there_are_or_why_none():
    for counts, expected in (
        ([400, 50, 6], "shot groups by count: many 1, medium 1, few 1 classes"),
        ([7, 7], "no shot groups: every class has 7 training images"),
        (
            [140, 120, 100],
            "no shot groups: the largest class has 1.4 times the images of the small",
        ),
    ):
        assert groups_note(shot_groups(counts), counts).startswith(expected)


def test_cumulative_takes_the_class_that_passes_the_threshold():
    """Shares 75, 20, 5 %: 75 % is reached, not passed, at the first class, so many has two."""
    assert cumulative_groups([75, 20, 5]) == ShotGroups("cumulative", (0, 1), (2,), ())
    assert cumulative_groups([76, 20, 4]) == ShotGroups("cumulative", (0,), (1,), (2,))
    assert cumulative_groups([0, 0]) == ShotGroups("cumulative")


def test_groups_partition_the_classes():
    rng = np.random.default_rng(0)
    for scheme in ("count", "rank", "cumulative", "auto"):
        counts = rng.integers(1, 300, size=37)
        groups = shot_groups(counts, scheme=scheme)
        assert sorted(c for _, classes in groups.items() for c in classes) == list(range(37))


def test_json_round_trip():
    groups = shot_groups(long_tail(10, 5000, 50))
    assert ShotGroups.from_json(json.loads(json.dumps(groups.to_json()))) == groups


def test_unknown_scheme_names_the_nearest():
    with pytest.raises(FedltError, match=r"evaluate.shots.*'ranks'; nearest: 'rank'"):
        shot_groups([1, 2], scheme="ranks")
