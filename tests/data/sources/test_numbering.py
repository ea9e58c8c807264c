"""Labels and client ids of any kind become numbers from 0, and keep their names."""

from __future__ import annotations

import numpy as np
import pytest

from fedlt.data.sources.numbering import number_clients, number_labels
from fedlt.errors import FedltError


def place(row: int) -> str:
    return f"row {row}"


def numbered(train, **others):
    parts = {"train": train, **others}
    return number_labels(parts, dict.fromkeys(parts, place))


@pytest.mark.parametrize(
    ("labels", "numbers", "names"),
    [
        ([0, 1, 2, 1], [0, 1, 2, 1], ("0", "1", "2")),
        ([1, 2, 2], [0, 1, 1], ("1", "2")),
        ([10, 7, 900], [1, 0, 2], ("7", "10", "900")),
        ([-1, 3], [0, 1], ("-1", "3")),
        ([[2], [1]], [1, 0], ("1", "2")),
        ([2.0, 1.0], [1, 0], ("1", "2")),
        ([True, False], [1, 0], ("0", "1")),
        (["10", "9", "10"], [1, 0, 1], ("9", "10")),  # text, but by value
        (["10", "9", "x"], [0, 1, 2], ("10", "9", "x")),
        ([" dog", "cat "], [1, 0], ("cat", "dog")),
        (np.array([b"b", b"a"]), [1, 0], ("a", "b")),
        (np.array(["b", 3], object), [1, 0], ("3", "b")),
        (np.array([3, 5], np.uint8), [0, 1], ("3", "5")),
    ],
)
def test_labels_of_every_kind(labels, numbers, names):
    found, classes = numbered(labels)
    assert found["train"].tolist() == numbers
    assert found["train"].dtype == np.int64
    assert classes == names


def test_other_parts_share_the_numbers_and_may_be_of_another_kind():
    found, _ = numbered(["4", "2", "9"], test=np.array([9, 2]), val=np.array([[4.0]]))
    assert found["test"].tolist() == [2, 0]
    assert found["val"].tolist() == [1]


@pytest.mark.parametrize(
    ("labels", "line"),
    [
        ([0.5, 1.0], "row 0: label 0.5 is neither an integer nor text"),
        (np.array(["a", 0.25], object), "row 1: label 0.25 is neither an integer nor text"),
        (["a", ""], "row 1: has no label"),
        ([1.0, np.nan], "row 1: has no label"),
        (np.array(["a", None], object), "row 1: has no label"),
        (np.zeros((3, 2)), "row 0: needs one label a row, got an array (3, 2)"),
    ],
)
def test_what_is_no_label(labels, line):
    with pytest.raises(FedltError) as caught:
        numbered(labels)
    assert str(caught.value) == line


def test_clients_without_training_images_are_nobody():
    parts = {"train": ["b", "a", "b"], "test": ["c", "", "a"]}
    found = number_clients(parts, dict.fromkeys(parts, place))
    assert found.names == ("a", "b")
    assert found.numbers["train"].tolist() == [1, 0, 1]
    assert found.numbers["test"].tolist() == [-1, -1, 0]
    assert found.strangers == {"train": {}, "test": {"c": 1}}


@pytest.mark.parametrize("empty", ["", "-", None, float("nan")])
def test_a_training_image_may_have_no_client(empty):
    rows = np.array(["b", empty, "a"], object)
    found = number_clients({"train": rows, "test": rows}, dict.fromkeys(("train", "test"), place))
    assert found.names == ("a", "b")
    assert found.numbers["train"].tolist() == found.numbers["test"].tolist() == [1, -1, 0]
    assert found.strangers == {"train": {}, "test": {}}
