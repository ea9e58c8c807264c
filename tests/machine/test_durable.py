"""What counts as written is on a disk: temporary folders of other tests may lie in memory."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load

from fedlt.machine.durable import pack_tensors, sync_folder, write_synced

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture
def on_disk():
    """Return a folder that outlives the machine's memory (the file hierarchy standard's)."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        yield Path(folder)


def test_a_file_and_its_name_are_synced(on_disk, monkeypatch):
    """Of fsync, which no test can see the effect of: it is called for both, after the bytes."""
    synced, fsync = [], os.fsync

    def noted(descriptor):
        fsync(descriptor)
        synced.append((os.readlink(f"/proc/self/fd/{descriptor}"), os.fstat(descriptor).st_size))

    monkeypatch.setattr(os, "fsync", noted)
    path = on_disk / "file"
    write_synced(path, b"twelve bytes")
    sync_folder(on_disk)
    assert path.read_bytes() == b"twelve bytes"
    assert synced[0] == (str(path), 12)
    assert [name for name, _ in synced] == [str(path), str(on_disk)]


def test_tensors_that_share_memory_and_ones_that_do_not_come_back():
    whole = torch.arange(6.0).reshape(2, 3)
    found = load(pack_tensors({"whole": whole, "same": whole, "across": whole.T}))
    assert found["whole"].tolist() == found["same"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert found["across"].tolist() == [[0, 3], [1, 4], [2, 5]]
