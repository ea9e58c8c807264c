"""Digests of arrays in memory and of rows of memory maps."""

from __future__ import annotations

import hashlib
import os

import numpy as np
import pytest

from fedlt.machine import array_digests, digests
from fedlt.machine.array_digests import array_digest, remembered_about
from fedlt.machine.maps import MappedRows


@pytest.fixture
def mapped(tmp_path):
    """Return a map of 40 rows of 3 bytes, all zero, and its file."""
    np.save(tmp_path / "a.npy", np.zeros((40, 3), np.uint8))
    return np.load(tmp_path / "a.npy", mmap_mode="r"), tmp_path / "a.npy"


def test_type_shape_and_every_value_of_an_array_count():
    array = np.arange(24, dtype=np.int64)
    others = [array.reshape(4, 6), array.astype(np.int32), array[::-1], array.copy()]
    found = [array_digest(one) for one in (array, *others)]
    assert len(set(found)) == 4
    assert found[0] == found[4]
    big = np.zeros(3 * array_digests._CHUNK, np.uint8)  # several threads
    before = array_digest(big)
    for place in (0, array_digests._CHUNK, len(big) - 1):
        big[place] = 1
        assert array_digest(big) != before
        big[place] = 0
    assert array_digest(big) == before


def test_the_digest_is_that_of_the_digests_of_the_chunks(monkeypatch):
    """The format, by hashlib: header, line feed, SHA-256 of each chunk of 8 bytes."""
    monkeypatch.setattr(array_digests, "_CHUNK", 8)
    array = np.arange(20, dtype=np.uint8)
    data = array.tobytes()
    parts = [hashlib.sha256(data[start : start + 8]).digest() for start in (0, 8, 16)]
    expected = hashlib.sha256(b"|u1 (20,)\n" + b"".join(parts)).hexdigest()
    assert array_digest(array) == expected


def test_of_a_large_array_in_memory_blocks_count(monkeypatch):
    """16 blocks of 64 bytes, one in each of 16 parts: a part that changes is seen."""
    monkeypatch.setattr(array_digests, "WHOLE", 1024)
    monkeypatch.setattr(array_digests, "BLOCKS", 16)
    monkeypatch.setattr(array_digests, "BLOCK", 64)
    array = np.zeros(4096, np.uint8)
    before = array_digest(array)
    seen = 0
    for part in range(16):
        array[256 * part : 256 * (part + 1)] = 1
        assert array_digest(array) != before
        array[:] = 0
    for place in range(4096):
        array[place] = 1
        seen += array_digest(array) != before
        array[place] = 0
    assert seen == 16 * 64  # the rest is what the blocks cannot see


@pytest.mark.parametrize("rows", [None, [5, 3, 3, 39, 0]])
def test_rows_of_a_map_have_the_digest_of_the_same_rows_in_memory(tmp_path, monkeypatch, rows):
    """7 bytes a chunk, so that chunks begin inside rows of 6 bytes; also of a transposed map."""
    monkeypatch.setattr(array_digests, "_CHUNK", 7)
    values = np.random.default_rng(0).integers(0, 256, (40, 3, 2), dtype=np.uint8)
    np.save(tmp_path / "a.npy", values)
    whole = np.load(tmp_path / "a.npy", mmap_mode="r")
    chosen = None if rows is None else np.array(rows)
    for view, same in ((whole, values), (whole.transpose(0, 2, 1), values.transpose(0, 2, 1))):
        expected = same if rows is None else same[rows]
        assert array_digest(MappedRows(view, chosen)) == array_digest(expected.copy())


def test_of_a_large_map_every_value_counts_and_no_time(mapped, monkeypatch):
    monkeypatch.setattr(array_digests, "WHOLE", 10)
    whole, path = mapped
    rows, others = np.arange(0, 40, 2), np.arange(1, 40, 2)
    first = [array_digest(whole), *(array_digest(MappedRows(whole, r)) for r in (rows, others))]
    assert len(set(first)) == 3
    os.utime(path, ns=(1, 1))
    assert array_digest(MappedRows(whole, rows)) == first[1]
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\1")
    assert array_digest(MappedRows(whole, rows)) != first[1]


def test_a_text_about_a_map_is_kept_until_the_file_changes(mapped, tmp_path, monkeypatch):
    monkeypatch.setenv("FEDLT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(array_digests, "SMALL", 10)
    monkeypatch.setattr(digests, "_SETTLED", -1.0)  # files of this test are young
    whole, path = mapped
    made = []

    def ask(array):
        return remembered_about(array, "sum", lambda: made.append(1) or f"text {len(made)}")

    assert [ask(whole), ask(whole), ask(np.zeros((40, 3))), ask(whole[:20])] == [
        "text 1", "text 1", "text 2", "text 3",
    ]  # fmt: skip
    path.touch()
    assert ask(whole) == "text 4"
