"""The value Partition: counts, hash, file, and what is refused."""

from __future__ import annotations

import hashlib
import json
import pickle
import struct

import numpy as np
import pytest

from fedlt.data.partition import Partition, labels_hash
from fedlt.errors import FedltError

LABELS = np.array([0, 0, 1, 1, 2, 2])


def _partition():
    clients = (np.array([4, 0]), np.array([], np.int64), np.array([1, 2, 3, 5]))
    return Partition(clients, 3, labels_hash(LABELS))


def test_positions_are_sorted_read_only_and_counted():
    partition = _partition()
    assert [part.tolist() for part in partition.clients] == [[0, 4], [], [1, 2, 3, 5]]
    assert not partition.clients[0].flags.writeable
    assert (partition.num_clients, partition.num_images) == (3, 6)
    assert partition.sizes().tolist() == [2, 0, 4]
    assert partition.counts(LABELS).tolist() == [[1, 0, 1], [0, 0, 0], [1, 2, 1]]


def test_owner_and_clients_say_the_same():
    partition = Partition.from_owner(
        np.array([0, 2, 2, 2, 0, 2]), LABELS, num_clients=3, num_classes=3
    )
    assert partition.hash() == _partition().hash()


def test_the_hash_is_pinned_and_feels_every_part():
    """Stable across versions and machines: the bytes, written out, change with the format only."""
    partition = _partition()
    labels = hashlib.sha256(struct.pack("<6q", 0, 0, 1, 1, 2, 2)).hexdigest()
    content = f"fedlt partition 1/3/{labels}".encode()
    content += struct.pack("<3q", 2, 0, 4)  # client 0: length, positions
    content += struct.pack("<q", 0)
    content += struct.pack("<5q", 4, 1, 2, 3, 5)
    assert partition.hash() == hashlib.sha256(content).hexdigest()
    clients = partition.clients
    others = [
        Partition((clients[1], clients[0], clients[2]), 3, partition.labels_sha256),
        Partition(clients, 4, partition.labels_sha256),
        Partition(clients, 3, labels_hash(LABELS[::-1])),
    ]
    assert len({partition.hash(), *(other.hash() for other in others)}) == 4


def test_a_file_gives_the_partition_back(tmp_path):
    path = tmp_path / "partition.json"
    _partition().save(path)
    loaded = Partition.load(path)
    assert loaded.hash() == _partition().hash()
    assert [part.dtype for part in loaded.clients] == [np.int64] * 3
    assert [entry.name for entry in tmp_path.iterdir()] == ["partition.json"]


@pytest.mark.parametrize(
    ("clients", "message"),
    [
        (([0, 1], [1, 2]), "row 1 is repeated, in clients 0 and 1"),
        (([0, 1], [3]), "client 1 has row 3, which is out of range; the 3 images have rows 0 to 2"),
        (([0, -1],), "client 0 has row -1"),
        ((), "no clients"),
        (([1, 1],), "row 1 is repeated, in client 0"),
    ],
)
def test_no_image_has_two_clients(clients, message):
    with pytest.raises(FedltError, match=f"partition: {message}"):
        Partition(tuple(np.array(part) for part in clients), 3, "")


def test_images_of_nobody_are_counted_nowhere():
    """Rows 0 and 3 of six images have no client: client 0 has a 1 and a 2, client 1 a 0 and a 2."""
    owner = np.array([-1, 1, 0, -1, 0, 1])
    partition = Partition.from_owner(owner, LABELS, num_clients=2, num_classes=3)
    assert [part.tolist() for part in partition.clients] == [[2, 4], [1, 5]]
    assert (partition.num_images, partition.num_dropped) == (6, 2)
    assert partition.counts(LABELS).tolist() == [[0, 1, 1], [1, 0, 1]]
    assert partition.owner().tolist() == owner.tolist()
    assert partition.covered().tolist() == [1, 2, 4, 5]
    again = Partition(([4, 2], [1, 5]), 3, labels_hash(LABELS), 6)
    assert again.hash() == partition.hash()


def test_images_of_nobody_survive_a_file(tmp_path):
    owner = np.array([-1, 1, 0, -1, 0, 1])
    partition = Partition.from_owner(owner, LABELS, num_clients=2, num_classes=3)
    partition.save(tmp_path / "p.json")
    assert Partition.load(tmp_path / "p.json").owner().tolist() == owner.tolist()


def _change(content, key, value):
    return json.dumps({**content, key: value})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda content: "{", "is not JSON"),
        (lambda content: "[]", "is not a fedlt partition"),
        (lambda content: _change(content, "format", 7), "format 1"),
        (lambda content: _change(content, "clients", [[0, 4], [], [1, 2, 5]]), "checksum"),
        (lambda content: _change(content, "clients", [[0, 5], [], [1, 2, 3, 4]]), "checksum"),
        (lambda content: _change(content, "clients", 3), "clients is 3; expected a list"),
        (lambda content: json.dumps({"clients": content["clients"]}), "has no format, num_clients"),
        (lambda content: _change(content, "num_classes", 4), "checksum"),
        (lambda content: _change(content, "labels_sha256", "0"), "checksum"),
    ],
)
def test_a_file_that_is_not_whole_is_refused(tmp_path, make, message):
    path = tmp_path / "partition.json"
    _partition().save(path)
    path.write_text(make(json.loads(path.read_text())))
    with pytest.raises(FedltError, match=message) as caught:
        Partition.load(path)
    assert "partition.json" in str(caught.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(FedltError, match=r"cannot be read: No such file"):
        Partition.load(tmp_path / "no.json")


def test_other_data_are_refused():
    with pytest.raises(FedltError, match="made for 6 images, but the data have 5"):
        _partition().check(LABELS[:5])
    with pytest.raises(FedltError, match="the labels differ"):
        _partition().counts(LABELS[::-1])


def test_a_large_population_is_a_few_arrays(tmp_path):
    """100,000 clients pickle as three buffers (positions, sizes, ends), not one a client."""
    clients = 100_000
    labels = np.arange(3 * clients) % 7
    owner = np.arange(3 * clients)[::-1] % clients
    partition = Partition.from_owner(owner, labels, num_clients=clients, num_classes=7)
    buffers = []
    stream = pickle.dumps(partition, protocol=5, buffer_callback=buffers.append)
    assert len(buffers) == 3
    assert len(stream) < 2000
    copy = pickle.loads(stream, buffers=buffers)
    partition.save(tmp_path / "p.json")
    for other in (copy, Partition.load(tmp_path / "p.json")):
        assert other.hash() == partition.hash()
        assert other.clients[99_998].tolist() == [1, 100_001, 200_001]
