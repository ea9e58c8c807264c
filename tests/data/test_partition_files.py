"""Partition files: used as they stand, or written by hand; errors name the place in the file."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fedlt.config import PartitionConfig
from fedlt.data.dealing import deal
from fedlt.data.partition_schemes import draw_partition
from fedlt.errors import FedltError

LABELS = np.array([0, 0, 0, 1, 1, 1])


def read(path, content=None, **changes):
    if content is not None:
        path.write_text(json.dumps(content))
    return deal(LABELS, 2, PartitionConfig(file=str(path), **changes), seed=1)


def test_a_saved_partition_is_used_as_it_stands(tmp_path):
    labels = np.arange(60) % 3
    drawn = draw_partition(labels, 3, PartitionConfig(num_clients=5), seed=1)
    drawn.save(tmp_path / "p.json")
    config = PartitionConfig(file=str(tmp_path / "p.json"), num_clients=3)
    dealt = deal(labels, 3, config, seed=9)
    assert dealt.partition.hash() == drawn.hash()
    assert dealt.notes == ()
    with pytest.raises(FedltError, match=r"p.json': made for 60 images, but the data have 59"):
        deal(labels[1:], 3, config, seed=1)
    with pytest.raises(FedltError, match="the labels differ"):
        deal(labels[::-1], 3, config, seed=1)


def test_a_file_written_by_hand_needs_the_rows_only(tmp_path):
    path = tmp_path / "by_hand.json"
    dealt = read(path, {"clients": [[0, 3], [1, 2, 4], [5]]})
    assert dealt.partition.counts(LABELS).tolist() == [[1, 1], [2, 1], [0, 1]]
    (line,) = dealt.notes
    assert "by_hand.json' has no labels_sha256: nothing shows" in line
    assert "and no sha256: a damaged file is not noticed" in line
    whole = tmp_path / "whole.json"
    dealt.partition.save(whole)
    assert read(whole).notes == ()
    assert read(whole).partition.hash() == dealt.partition.hash()


def test_uncovered_images_are_refused_or_dropped(tmp_path):
    path = tmp_path / "p.json"
    content = {"clients": [[0, 1], [2]]}
    with pytest.raises(FedltError, match=r"3 of 6 images to no client; partition.uncovered=drop"):
        read(path, content)
    dealt = read(path, content, uncovered="drop")
    assert dealt.partition.counts(LABELS).tolist() == [[2, 0], [1, 0]]
    assert dealt.notes[1:] == ("3 of 6 training images belong to no client and are not used",)
    with pytest.raises(FedltError, match="gives no image to any client"):
        read(path, {"clients": [[], []]}, uncovered="drop")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([[0, 1]], 'expected {"clients": [[0, 1], [2]]}'),
        ({"client": [[0]]}, "is not a fedlt partition"),
        ({"clients": {"a": [0]}}, "clients is {'a': [0]}; expected a list"),
        ({"clients": [[0, 1], 2]}, "client 1 is 2; expected a list of rows"),
        ({"clients": [[0], [1.5]]}, "client 1 has 1.5; a row is a whole number"),
        ({"clients": [[0], [True]]}, "client 1 has True; a row is a whole number"),
        ({"clients": [[0], ["1"]]}, "client 1 has '1'"),
        ({"clients": [[0], [10**30]]}, "client 1 has 1000000000000000000000000000000;"),
        ({"clients": [[0, 1], [2, 6]]}, "client 1 has row 6, which is out of range; the 6 images"),
        ({"clients": [[0, 1], [1, 2]]}, "row 1 is repeated, in clients 0 and 1"),
        ({"clients": []}, "clients is []; expected a list"),
        ({"clients": [[0]], "num_clients": 2}, "num_clients is 2, but clients has 1"),
        ({"clients": [[0]], "num_images": 7}, "made for 7 images, but the data have 6"),
        ({"clients": [[0]], "num_classes": 3}, "made for 3 classes, but the data have 2"),
        ({"clients": [[0]], "num_classes": "2"}, "num_classes is '2'; expected a whole number"),
        ({"clients": [[0]], "labels_sha256": "ab"}, "the labels differ"),
        ({"clients": [[0]], "sha256": "ab"}, "the checksum is wrong"),
        ({"clients": [[0]], "num_client": 1}, "unknown key 'num_client'; nearest: 'num_clients'"),
        ({"clients": [[0]], "format": 2}, "has format 2; known is format 1"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(tmp_path, content, message):
    with pytest.raises(FedltError) as caught:
        read(tmp_path / "p.json", content, uncovered="drop")
    assert "p.json" in str(caught.value)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(FedltError, match="cannot be read"):
        read(tmp_path / "no.json")
