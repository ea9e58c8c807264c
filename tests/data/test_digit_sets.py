"""MNIST, KMNIST, EMNIST and SVHN from files in the formats of their authors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torchvision
from scipy.io import savemat

from fedlt.data.datasets import load_dataset
from fedlt.errors import FedltError

NOISE = np.random.default_rng(0).integers(0, 256, (30, 28, 28), dtype=np.uint8)


def write_idx(raw: Path, prefix: str, images: np.ndarray, labels: np.ndarray) -> None:
    """Write images and labels as idx files: a big-endian header, then bytes."""
    raw.mkdir(parents=True, exist_ok=True)
    for kind, magic, array in (("images-idx3", 0x803, images), ("labels-idx1", 0x801, labels)):
        header = np.array([magic, *array.shape], ">i4").tobytes()
        (raw / f"{prefix}-{kind}-ubyte").write_bytes(header + array.astype(np.uint8).tobytes())


@pytest.mark.parametrize(
    ("name", "folder", "first"), [("mnist", "MNIST", "0 - zero"), ("kmnist", "KMNIST", "o")]
)
def test_digits_are_read_and_their_moments_computed(tmp_path, name, folder, first):
    labels = np.arange(30) % 10
    write_idx(tmp_path / folder / "raw", "train", NOISE, labels)
    write_idx(tmp_path / folder / "raw", "t10k", NOISE[:10], labels[:10])
    data = load_dataset(name, root=str(tmp_path))
    np.testing.assert_array_equal(data.train_images[:, 0], NOISE)
    assert data.test_labels.tolist() == list(range(10))
    assert (data.num_classes, data.class_names[0]) == (10, first)
    assert data.mean[0] == pytest.approx((NOISE / 255).mean())
    assert data.std[0] == pytest.approx((NOISE / 255).std())


def test_emnist_stands_upright_and_its_letters_begin_at_zero(tmp_path):
    """The files hold an image's columns as rows, and `a` as 1."""
    labels = 1 + np.arange(30) % 26
    raw = tmp_path / "EMNIST/raw"
    write_idx(raw, "emnist-letters-train", NOISE.transpose(0, 2, 1), labels)
    write_idx(raw, "emnist-letters-test", NOISE[:5].transpose(0, 2, 1), labels[:5])
    data = load_dataset("emnist", root=str(tmp_path), options={"split": "letters"})
    np.testing.assert_array_equal(data.train_images[:, 0], NOISE)
    np.testing.assert_array_equal(data.test_images[:, 0], NOISE[:5])
    assert data.train_labels.tolist() == [n % 26 for n in range(30)]
    assert (data.name, data.class_names[:2], data.num_classes) == ("emnist_letters", ("a", "b"), 26)


def test_emnist_s_digits_begin_at_zero_as_they_are(tmp_path):
    labels = np.arange(30) % 10
    for part, count in (("train", 30), ("test", 10)):
        prefix = f"emnist-digits-{part}"
        write_idx(tmp_path / "EMNIST/raw", prefix, NOISE[:count], labels[:count])
    data = load_dataset("emnist", root=str(tmp_path), options={"split": "digits"})
    assert data.test_labels.tolist() == list(range(10))
    with pytest.raises(FedltError, match="split: unknown 'digit'; nearest: 'digits'"):
        load_dataset("emnist", options={"split": "digit"})


def test_svhn_has_its_zeros_as_class_zero(tmp_path, monkeypatch):
    """The files hold (H, W, Ch, N), and the digit 0 as 10."""
    images = np.random.default_rng(1).integers(0, 256, (20, 3, 32, 32), dtype=np.uint8)
    labels = 1 + np.arange(20) % 10
    for part in ("train", "test"):
        content = {"X": images.transpose(2, 3, 1, 0), "y": labels[:, None]}
        savemat(tmp_path / f"{part}_32x32.mat", content)
    module = torchvision.datasets.svhn
    monkeypatch.setattr(module, "check_integrity", lambda path, md5=None: Path(path).is_file())
    data = load_dataset("svhn", root=str(tmp_path))
    np.testing.assert_array_equal(data.train_images, images)
    assert data.train_labels.tolist() == [*range(1, 10), 0] * 2
    assert data.class_names == tuple("0123456789")
