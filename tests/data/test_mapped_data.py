"""Data sets in memory maps: the same numbers as in memory, and no copy of the map."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from fedlt.config import Config
from fedlt.data import dataset_from_arrays, prepare_data
from fedlt.errors import FedltError
from fedlt.federation import Parties
from fedlt.machine.maps import MappedRows, MappedTensor, map_place, placed
from fedlt.methods.lookup import resolve_client, resolve_strategy
from fedlt.runs.fingerprint import fingerprint
from fedlt.worker.scorer import Host

CPU = torch.device("cpu")
LOADER = """
import numpy as np
from fedlt.data import dataset_from_arrays

def load(path, mode=None, channels="first"):
    made = []
    for part in ("train", "test"):
        images = np.load(f"{path}/{part}.npy", mmap_mode=mode)
        made += [images.transpose(0, 2, 3, 1) if channels == "last" else images, labels(images)]
    return dataset_from_arrays("mine", *made, channels_last=channels == "last")

def labels(images):
    return np.arange(len(images)) % 4
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with noise of 6 x 9 pixels in two files, and with a data set's function."""
    place = tmp_path_factory.mktemp("maps")
    draw = np.random.default_rng(0)
    for part, count in (("train", 160), ("test", 40)):
        np.save(place / f"{part}.npy", draw.integers(0, 256, (count, 3, 6, 9), dtype=np.uint8))
    (place / "mine.py").write_text(LOADER)
    return place


def config_of(folder, mode=None, *, channels="first", **sections):
    options = {"path": str(folder), "mode": mode, "channels": channels}
    data = {"dataset": f"{folder}/mine.py:load", "options": options}
    tree = {
        "name": "mapped",
        "rounds": 2,
        "partition": {"num_clients": 4},
        "model": {"name": "cnn", "width": 2},
        "local": {"batch_size": 8, "augment": "crop_flip"},
        "engine": {"name": "serial"},
        **sections,
    }
    tree["data"] = {"imbalance_factor": 4, **data, **sections.get("data", {})}
    return Config.model_validate(tree)


def prepared(config):
    return prepare_data(config.data, config.partition, seed=1)


def parties_of(config, data):
    return Parties.of(config, resolve_strategy(config), resolve_client(config), data)


@pytest.mark.parametrize("split", ["final", "tune"])
@pytest.mark.parametrize("channels", ["first", "last"])
def test_a_map_has_the_digests_and_the_rows_of_the_same_arrays_in_memory(folder, split, channels):
    mapped, read = (
        prepared(config_of(folder, mode, channels=channels, data={"split": split}))
        for mode in ("r", None)
    )
    assert isinstance(mapped.train_images, MappedRows)
    assert isinstance(mapped.eval_images, MappedRows)
    assert isinstance(read.train_images, np.ndarray)
    config = config_of(folder)
    assert fingerprint(config, mapped).data == fingerprint(config, read).data
    np.testing.assert_array_equal(np.asarray(mapped.train_images), read.train_images)
    np.testing.assert_array_equal(mapped.eval_images[3:9], read.eval_images[3:9])
    np.testing.assert_array_equal(mapped.train_images[[5, 1]], read.train_images[[5, 1]])
    np.testing.assert_array_equal(mapped.train_images[7], read.train_images[7])


@pytest.mark.parametrize("channels", ["first", "last"])
def test_a_run_from_a_map_has_the_bits_of_a_run_from_memory(lab, folder, channels):
    def rows(mode, data):
        tree = config_of(folder, mode, channels=channels).model_dump()
        changes = {key: tree[key] for key in ("data", "partition", "model", "local", "rounds")}
        return lab.run(name=f"{data}-{channels}", **changes).rows

    assert rows("r", "map") == rows(None, "memory")


def test_map_place_finds_the_byte_of_a_view_and_no_copy(folder):
    whole = np.load(folder / "train.npy", mmap_mode="r")
    path, start = map_place(whole)
    assert path == folder / "train.npy"
    for view in (whole[10:], whole[10:].view(np.ndarray), whole[10:].transpose(0, 2, 3, 1)):
        found = map_place(view)
        assert found == (path, start + 10 * 3 * 6 * 9)
        assert path.read_bytes()[found[1]] == view.reshape(-1)[0]
    changed = np.load(folder / "train.npy", mmap_mode="c")
    for array in (whole[[1, 2]], whole + 0, np.array(whole), changed, [1]):
        assert map_place(array) is None


@pytest.mark.parametrize("rows", [None, [9, 4, 4, 0]])
@pytest.mark.parametrize("axes", [(0, 1, 2, 3), (0, 2, 3, 1)])
def test_mapped_tensors_are_indexed_as_tensors(folder, rows, axes):
    whole = np.load(folder / "train.npy", mmap_mode="r").transpose(axes)
    chosen = None if rows is None else np.array(rows)
    images = MappedTensor(MappedRows(whole, chosen), CPU)
    tensor = torch.from_numpy(np.array(whole if rows is None else whole[rows]))
    mask = torch.arange(len(tensor)) % 2 == 0
    keys = [torch.tensor([3, 0]), torch.tensor([[1], [2]]), slice(1, 3), [0, 2], 2, mask]
    for key in keys:
        assert torch.equal(images[key], tensor[key])
        assert images[key].is_contiguous()
    assert torch.equal(images.index_select(0, keys[0]), tensor.index_select(0, keys[0]))
    assert (images.shape, images.dtype, len(images)) == (tensor.shape, tensor.dtype, len(tensor))
    with pytest.raises(ValueError, match="along axis 0, not 1"):
        images.index_select(1, keys[0])


def test_a_backward_map_is_read_in_its_order(folder):
    whole = np.load(folder / "train.npy", mmap_mode="r")[::-1]
    images = MappedTensor(MappedRows(whole), CPU)
    assert torch.equal(images[torch.tensor([0, 5])], torch.from_numpy(np.array(whole[[0, 5]])))


# ---- between processes


def test_a_pickle_holds_the_place_of_the_file_and_opens_it_again(folder):
    data = prepared(config_of(folder, "r", channels="last"))
    rows = data.train_images
    text = pickle.dumps(rows)
    assert len(text) < rows.nbytes / 2
    again = pickle.loads(text)
    np.testing.assert_array_equal(np.asarray(again), np.asarray(rows))
    assert map_place(again.whole) == map_place(rows.whole)


def test_a_process_without_the_file_says_so_in_one_line(folder, tmp_path):
    def pickled():
        np.save(tmp_path / "a.npy", np.zeros((4, 1, 2, 2), np.uint8))
        return pickle.dumps(MappedRows(np.load(tmp_path / "a.npy", mmap_mode="r")))

    text = pickled()
    os.utime(tmp_path / "a.npy", ns=(1, 1))
    with pytest.raises(FedltError, match=r"a.npy on .* another time .*share one file") as changed:
        placed(pickle.loads(text), CPU)
    (tmp_path / "a.npy").unlink()
    with pytest.raises(FedltError, match=r"a.npy on .* cannot be read .*every node") as missing:
        placed(pickle.loads(text), CPU)
    assert "\n" not in f"{changed.value}{missing.value}"


# ---- memory


def private_bytes():
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(text.split("RssAnon:")[1].split()[0])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_training_and_scoring_make_no_copy_of_a_map(tmp_path):
    """96 MB of zeros in a sparse file; a quarter of it is room for all else that is allocated."""
    shape = (8192, 3, 64, 64)
    images = np.lib.format.open_memmap(tmp_path / "a.npy", "w+", np.uint8, shape)
    images = np.load(tmp_path / "a.npy", mmap_mode="r")
    labels = np.arange(len(images)) % 4
    config = config_of(tmp_path, partition={"num_clients": 200, "scheme": "iid"})
    before = private_bytes()
    source = dataset_from_arrays("mine", images, labels, images[:2048], labels[:2048])
    data = prepare_data(config.data, config.partition, seed=1, source=source)
    parties = parties_of(config, data)
    host = Host(parties.shares, parties.observer)
    batch = next(iter(_client(host, parties).epoch_batches(0)))
    assert batch.images.shape == (8, *shape[1:])
    assert len(host.scorer.images[:8]) == 8
    fingerprint(config, data)
    assert private_bytes() - before < images.nbytes / 4


def _client(host, parties):
    from fedlt.flower.server_half import make_server_half

    server = make_server_half(parties.view)
    return host.worker.first_client(server.state, 0, server.prior_counts([0]))
