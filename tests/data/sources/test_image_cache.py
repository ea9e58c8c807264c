"""The cache of decoded images: decoded once, whole or not at all, one valid file for all."""

from __future__ import annotations

import errno
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
from image_trees import write_image, write_tree

from fedlt.data.datasets import load_dataset
from fedlt.data.sources import decoding
from fedlt.data.sources.image_cache import ImageCache
from fedlt.errors import FedltError
from fedlt.machine.maps import map_place


@pytest.fixture
def tree(tmp_path):
    return write_tree(tmp_path / "tree")


def load(tree: Path, cache: ImageCache, **options: object):
    return load_dataset("folder", options={"path": str(tree), **options}, cache=cache)


def files(cache: ImageCache) -> list[Path]:
    return sorted(cache.folder.iterdir()) if cache.folder.exists() else []


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """The places of the images that are decoded."""
    places = []
    read = decoding.read_picture

    def counted(source, **options):
        places.append(options["where"])
        return read(source, **options)

    monkeypatch.setattr(decoding, "read_picture", counted)
    return places


def test_the_second_open_decodes_nothing(tree, tmp_path, decoded):
    cache = ImageCache(tmp_path / "cache")
    first = load(tree, cache, image_size=8)
    assert len(decoded) == 13
    second = load(tree, cache, image_size=8)
    assert len(decoded) == 13
    np.testing.assert_array_equal(first.train_images, second.train_images)
    assert map_place(first.train_images)[0].parent == cache.folder
    assert [one.seconds is None for one in cache.written] == [False, False, True, True]
    assert [path.name.split("-")[:3] for path in files(cache)] == [
        ["tree", "test", "8x8"],
        ["tree", "train", "8x8"],
    ]


@pytest.mark.parametrize("change", ["image", "time", "list", "size", "channels", "version"])
def test_what_the_images_are_made_of_changes_the_name(tree, tmp_path, change, monkeypatch):
    cache, options = ImageCache(tmp_path / "cache"), {"image_size": 8}
    load(tree, cache, **options)
    before = {path.name for path in files(cache)}
    image = tree / "train/ant/0.png"
    if change == "image":
        write_image(image, (12, 21, 3))
    elif change == "time":
        os.utime(image, (1, 1))
    elif change == "list":
        image.unlink()
    elif change == "version":
        monkeypatch.setattr("fedlt.data.sources.image_cache.VERSION", 2)
    else:
        options = {"size": {"image_size": 9}, "channels": {"image_size": 8, "channels": 1}}[change]
    load(tree, cache, **options)
    new = {path.name for path in files(cache)} - before
    assert any("-train-" in name for name in new)


def test_an_interrupted_preparation_leaves_no_file_that_opens(tree, tmp_path, monkeypatch):
    cache = ImageCache(tmp_path / "cache")

    def stopped(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(decoding, "read_picture", stopped)
    with pytest.raises(KeyboardInterrupt):
        load(tree, cache, image_size=8)
    assert files(cache) == []
    monkeypatch.undo()
    left = cache.folder / next(iter(_names(tree, tmp_path)))
    left.with_name(f".{left.name}.part").write_bytes(b"left by a killed process")
    load(tree, cache, image_size=8)
    assert [path.suffix for path in files(cache)] == [".npy", ".npy"]


def _names(tree: Path, tmp_path: Path) -> list[str]:
    other = ImageCache(tmp_path / "other")
    load(tree, other, image_size=8)
    return [path.name for path in files(other)]


def _prepare(tree: Path, folder: Path, barrier: multiprocessing.Barrier) -> None:
    read = decoding.read_picture

    def slow(*args, **options):
        __import__("time").sleep(0.01)
        return read(*args, **options)

    decoding.read_picture = slow
    cache = ImageCache(folder)
    barrier.wait()
    load(tree, cache, image_size=8)
    raise SystemExit(sum(one.seconds is not None for one in cache.written))


def test_two_processes_at_once_end_with_one_valid_file(tree, tmp_path):
    """Each file is decoded by one of them; the other waits and opens what it finds."""
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    folder = tmp_path / "cache"
    both = [context.Process(target=_prepare, args=(tree, folder, barrier)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert sum(process.exitcode for process in both) == 2
    cache = ImageCache(folder)
    found = load(tree, cache, image_size=8)
    alone = load(tree, ImageCache(tmp_path / "alone"), image_size=8)
    np.testing.assert_array_equal(found.train_images, alone.train_images)
    assert len(files(cache)) == 2


def test_the_number_of_threads_changes_no_pixel(tmp_path):
    tree = write_tree(tmp_path / "many", {"train": {"a": 90, "b": 70}, "test": {"a": 1}})
    one, four = (load(tree, ImageCache(tmp_path / str(n), workers=n)) for n in (1, 4))
    np.testing.assert_array_equal(one.train_images, four.train_images)


def test_a_full_disk_is_one_line(tree, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    cache = ImageCache(tmp_path / "cache")
    with pytest.raises(FedltError) as caught:
        load(tree, cache)
    line = str(caught.value)
    assert "No space left on device (it needs 0.00 GB); data.root or FEDLT_DATA" in line
    assert files(cache) == []


def test_a_folder_that_cannot_be_written_is_one_line(tree, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FedltError, match=r"cannot be written: .*data.root or FEDLT_DATA"):
        load(tree, ImageCache(tmp_path / "file/cache"))


def test_a_damaged_file_is_named(tree, tmp_path):
    cache = ImageCache(tmp_path / "cache")
    load(tree, cache)
    train = next(path for path in files(cache) if "train" in path.name)
    train.write_bytes(train.read_bytes()[:-5])
    with pytest.raises(FedltError, match=r"train.*npy: is damaged, remove it"):
        load(tree, cache)
