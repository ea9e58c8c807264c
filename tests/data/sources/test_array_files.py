"""Arrays in files are mapped where they lie; packed ones are written into the cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedlt.data.datasets import load_dataset
from fedlt.data.sources import npz_file
from fedlt.data.sources.array_files import open_arrays
from fedlt.machine.maps import map_place


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEDLT_DATA", "data")


def arrays(**images: np.ndarray) -> dict[str, np.ndarray]:
    labels = {f"{key.partition('_')[0]}_labels": np.arange(len(x)) % 3 for key, x in images.items()}
    return {**images, **labels}


TRAIN = np.random.default_rng(0).integers(0, 256, (60, 3, 8, 10), dtype=np.uint8)
TEST = TRAIN[::-2]
FLOATS = (TRAIN / 255).astype(np.float32)


@pytest.mark.parametrize("images", [TRAIN, FLOATS, TRAIN.transpose(0, 2, 3, 1).copy()])
def test_an_uncompressed_member_is_mapped_at_its_offset(images):
    np.savez("a.npz", **arrays(train_images=images, test_images=images[:9]))
    data = load_dataset("npz", options={"path": "a.npz"})
    path, offset = map_place(data.train_images)
    assert path == Path("a.npz").absolute()
    raw = Path("a.npz").read_bytes()
    assert raw[offset : offset + images.nbytes] == images.tobytes()
    wanted = TRAIN if images.dtype == np.uint8 else FLOATS
    np.testing.assert_array_equal(np.asarray(data.train_images), wanted)


def test_a_file_of_a_folder_is_mapped():
    Path("d").mkdir()
    for key, one in arrays(train_images=TRAIN, test_images=TEST).items():
        np.save(f"d/{key}.npy", one)
    data = load_dataset("npz", options={"path": "d"})
    assert map_place(data.train_images)[0] == Path("d/train_images.npy").absolute()


@pytest.mark.parametrize("images", [TRAIN, FLOATS.astype(np.float64)])
def test_large_packed_arrays_are_written_into_the_cache_once(images, monkeypatch):
    np.savez_compressed("a.npz", **arrays(train_images=images, test_images=TEST[:3] / 255))
    if images.dtype == np.uint8:
        np.savez_compressed("a.npz", **arrays(train_images=images, test_images=TEST[:3]))
    plain = load_dataset("npz", options={"path": "a.npz"})
    assert map_place(plain.train_images) is None
    monkeypatch.setattr(npz_file, "_IN_MEMORY", 2000)
    data = load_dataset("npz", options={"path": "a.npz"})
    path, _ = map_place(data.train_images)
    assert path.parent == Path("data/cache").absolute()
    np.testing.assert_array_equal(np.asarray(data.train_images), plain.train_images)
    assert data.mean == pytest.approx(plain.mean)
    written = path.stat().st_mtime_ns
    assert map_place(load_dataset("npz", options={"path": "a.npz"}).train_images)[0] == path
    assert path.stat().st_mtime_ns == written
    np.savez_compressed("a.npz", **arrays(train_images=images[::-1], test_images=images[:3]))
    other, _ = map_place(load_dataset("npz", options={"path": "a.npz"}).train_images)
    assert other.name != path.name


def test_columns_first_arrays_and_packed_chunks_are_read_in_order(monkeypatch):
    """Fortran's order cannot be mapped here; packed members are read some rows at a time."""
    monkeypatch.setattr("fedlt.data.sources.array_files._CHUNK", 1000)
    np.savez("f.npz", x=np.asfortranarray(TRAIN))
    np.savez_compressed("c.npz", x=TRAIN)
    for name in ("f.npz", "c.npz"):
        member = open_arrays(Path(name))["x"]
        assert member.mapped is None
        np.testing.assert_array_equal(member.read(), TRAIN)
    assert len(list(member.chunks())) == 15  # 240 bytes a row, 4 rows a chunk


def test_features_are_vectors_of_float32_and_are_mapped():
    vectors = np.random.default_rng(1).standard_normal((12, 7)).astype(np.float32)
    given = arrays(train_features=vectors, test_features=vectors[:4].astype(np.float64))
    np.savez("f.npz", **given)
    data = load_dataset("features", options={"path": "f.npz"})
    assert data.train_images.shape == (12, 7, 1, 1)
    np.testing.assert_array_equal(np.asarray(data.train_images)[:, :, 0, 0], vectors)
    assert data.test_images.dtype == np.float32
    assert map_place(data.train_images)[0] == Path("f.npz").absolute()
    np.testing.assert_allclose(data.mean, vectors.mean(axis=0), rtol=1e-4, atol=1e-6)
