"""Pools of synthetic images: files, folders, the cache, and what a run refuses of them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from fedlt.errors import FedltError
from fedlt.generators.pool import Pool, cached_pool, load_pool, save_pool
from fedlt.generators.tail import use_pool


def pool_of(count=6, **changes):
    rng = np.random.default_rng(0)
    fields = {
        "images": rng.integers(0, 256, (count, 1, 8, 8), dtype=np.uint8),
        "labels": np.arange(count) % 2,
        "levels": np.array([0.1, 0.3, 0.5] * (count // 3)),
        "sources": np.arange(count) + 10,
        **changes,
    }
    return Pool(**fields)


def equal(one, other):
    return all(np.array_equal(getattr(one, n), getattr(other, n)) for n in vars(one))


def test_a_file_comes_back(tmp_path):
    pool = pool_of(scores=np.linspace(0, 1, 6))
    save_pool(pool, tmp_path / "pool.npz")
    assert equal(load_pool(tmp_path / "pool.npz"), pool)
    assert list(tmp_path.iterdir()) == [tmp_path / "pool.npz"]


def test_a_folder_is_read_and_cached(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDLT_CACHE", str(tmp_path / "cache"))
    pool = pool_of()
    for n, image in enumerate(pool.images):
        place = tmp_path / "made" / f"{pool.levels[n]:g}" / str(pool.labels[n])
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0]).save(place / f"{pool.sources[n]}_0.png")
    found = load_pool(tmp_path / "made")
    order = np.argsort(found.sources)
    assert equal(found.take(order), pool)
    assert len(list((tmp_path / "cache").glob("pool-*.npz"))) == 1
    monkeypatch.setattr("fedlt.generators.pool._read_folder", None)  # the cache answers
    assert equal(load_pool(tmp_path / "made"), found)


def test_a_pool_is_filled_once(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDLT_CACHE", str(tmp_path))
    calls = []

    def make():
        calls.append(1)
        return pool_of()

    first = cached_pool("made", ["seed 1"], make)
    assert equal(cached_pool("made", ["seed 1"], make), first)
    cached_pool("made", ["seed 2"], make)
    assert len(calls) == 2
    next(tmp_path.glob("made-*.npz")).write_bytes(b"PK broken")
    cached_pool("made", ["seed 1"], make)
    cached_pool("made", ["seed 2"], make)
    assert len(calls) == 3  # one was damaged and is made again


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"images": np.zeros((6, 8, 8))}, "images must be uint8"),
        ({"labels": np.full(6, 0.5)}, "labels must be whole numbers"),
        ({"labels": np.arange(5)}, r"6 images, but labels of shape \(5,\)"),
        ({"levels": np.full(6, 1.0)}, r"levels must lie in \[0, 1\)"),
        ({"sources": np.full(6, -1)}, "sources must be whole numbers of at least 0"),
        ({"scores": np.full(6, np.nan)}, "scores must be finite"),
    ],
)
def test_wrong_fields_are_refused(changes, reason):
    with pytest.raises(FedltError, match=reason):
        pool_of(**changes)


def broken(tmp_path, kind):
    place = tmp_path / "pool.npz"
    if kind == "text":
        place.write_text("no", encoding="utf-8")
    elif kind == "field":
        np.savez(place, images=np.zeros((1, 8, 8), np.uint8))
    elif kind == "folder":
        place.mkdir()
    elif kind == "name":
        (place / "low" / "1").mkdir(parents=True)
        Image.new("L", (8, 8)).save(place / "low" / "1" / "2.png")
    return place


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("missing", "cannot be read: .*No such file"),
        ("text", "cannot be read"),
        ("field", "cannot be read: .*labels is not a file"),
        ("folder", "no image; expected"),
        ("name", "low/1/2.png is not LEVEL/CLASS/SOURCE_n.png"),
    ],
)
def test_what_is_no_pool_is_one_line(tmp_path, kind, reason):
    with pytest.raises(FedltError, match=reason) as error:
        load_pool(broken(tmp_path, kind))
    assert "\n" not in str(error.value)
    assert "pool.npz" in str(error.value)


# ---- inside a run


@pytest.fixture
def data(lab):
    return lab.federation().observer.data


def fitting(data, **changes):
    """Two images of each level from each of three sources."""
    chosen = np.repeat([0, 5, 40], 2)
    sources = data.pool_indices[chosen]
    labels = data.train_labels[chosen]
    levels = np.array([0.3, 0.1] * 3)
    return pool_of(**{"labels": labels, "sources": sources, "levels": levels, **changes})


def test_sources_become_positions_in_the_runs_images(data):
    used = use_pool(fitting(data), data, levels=(), min_score=None)
    assert used["pool.sources"].tolist() == [0, 0, 5, 5, 40, 40]
    assert used["pool.levels"].tolist() == [0.1, 0.3]
    assert used["pool.stages"].tolist() == [1, 0] * 3


def test_levels_and_scores_choose(data):
    pool = fitting(data, scores=np.array([0.9, 0.1, 0.5, 0.9, 0.2, 0.2]))
    used = use_pool(pool, data, levels=(0.1,), min_score=0.2)
    assert used["pool.sources"].tolist() == [5, 40]


@pytest.mark.parametrize(
    ("changes", "options", "reason"),
    [
        ({"images": np.zeros((6, 1, 4, 4), np.uint8)}, {}, "its images are"),
        ({}, {"min_score": 0.3}, "needs scores, and it has none"),
        ({"scores": np.zeros(6)}, {"min_score": 2.0}, "no image is left of 6; min_score is 2.0"),
        ({}, {"levels": (0.2,)}, r"no image of level 0.2; it has \[0.1, 0.3\]"),
        ({"labels": np.full(6, 3)}, {}, r"image 0 is of class 3, its source \d+ of class 0"),
        ({"sources": np.full(6, 10**6)}, {}, "none is made from an image that this run trains on"),
    ],
)
def test_what_does_not_fit_is_refused(data, changes, options, reason):
    given = {"levels": (), "min_score": None, **options}
    pool = fitting(data, **changes)
    with pytest.raises(FedltError, match=reason):
        use_pool(pool, data, **given)
