"""Fashion-MNIST, CIFAR-10 and CIFAR-100: where files are looked for, and what a failure leaves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torchvision

from fedlt.data.datasets import load_dataset
from fedlt.data.longtail import long_tail
from fedlt.data.torchvision_sets import data_root
from fedlt.errors import FedltError

SHARED = Path(__file__).resolve().parents[2] / "../shared/data"


def test_root_is_the_argument_then_the_variable_then_the_cache(monkeypatch):
    monkeypatch.setenv("FEDLT_DATA", "/from/variable")
    assert data_root("/given") == Path("/given")
    assert data_root(None) == Path("/from/variable")
    monkeypatch.delenv("FEDLT_DATA")
    assert data_root(None) == Path.home() / ".cache/fedlt/data"


def _offline(self):
    folder = Path(self.root) / "half"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "written").write_bytes(b"x")
    raise OSError("no\nnetwork")


@pytest.mark.parametrize(
    ("name", "reader"),
    [
        ("fashion_mnist", "FashionMNIST"),
        ("cifar10", "CIFAR10"),
        ("cifar100", "CIFAR100"),
        ("kmnist", "KMNIST"),
        ("emnist", "EMNIST"),
        ("svhn", "SVHN"),
    ],
)
def test_a_failed_download_is_one_line_and_leaves_nothing(monkeypatch, tmp_path, name, reader):
    monkeypatch.setattr(getattr(torchvision.datasets, reader), "download", _offline)
    root = tmp_path / "data"
    with pytest.raises(FedltError) as caught:
        load_dataset(name, root=str(root))
    message = str(caught.value)
    assert "\n" not in message
    for part in (name, str(root), "data.root", "FEDLT_DATA", "no network"):
        assert part in message
    assert not root.exists()


def _fake_fashion_mnist(root, train_images, test_images):
    """Write idx files as torchvision reads them: big-endian header, then bytes."""
    raw = Path(root) / "FashionMNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for part, count in (("train", train_images), ("t10k", test_images)):
        header = np.array([0x803, count, 28, 28], ">i4").tobytes()
        pixels = (np.arange(count * 784) % 251).astype(np.uint8)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
        labels = (np.arange(count) % 10).astype(np.uint8).tobytes()
        header = np.array([0x801, count], ">i4").tobytes()
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(header + labels)


def test_a_download_is_moved_into_place_silently_and_used_again(monkeypatch, tmp_path, capfd):
    calls = []

    def download(self):
        calls.append(self.root)
        sys.stdout.write("100%")
        sys.stderr.write("100%")
        _fake_fashion_mnist(self.root, 30, 20)
        (Path(self.root) / "FashionMNIST" / "raw" / "train.gz").write_bytes(b"archive")

    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "download", download)
    monkeypatch.setenv("FEDLT_DATA", str(tmp_path))
    data = load_dataset("fashion_mnist")
    assert data.train_images.shape == (30, 1, 28, 28)
    assert data.train_images[0, 0, 0, :3].tolist() == [0, 1, 2]
    assert data.test_labels.tolist() == list(range(10)) * 2
    assert [path.name for path in tmp_path.iterdir()] == ["FashionMNIST"]
    assert not list(tmp_path.rglob("*.gz"))
    load_dataset("fashion_mnist")
    assert len(calls) == 1
    assert capfd.readouterr() == ("", "")


def test_damaged_files_are_named(tmp_path):
    _fake_fashion_mnist(tmp_path, 30, 20)
    path = tmp_path / "FashionMNIST/raw/train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(FedltError, match=r"fashion_mnist in .* are damaged"):
        load_dataset("fashion_mnist", root=str(tmp_path))


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.exists(), reason="shared data not here")
def test_the_real_images_give_the_published_statistics_and_lists(tmp_path):
    """Constants in common use to the digits printed; LDAM's index lists exactly."""
    subprocess.run([sys.executable, SHARED / "unpack.py", tmp_path], check=True)
    lists = np.load(SHARED / "splits/cifar_lt_indices.npz")
    named = {"fashion_mnist": "T-shirt/top", "cifar10": "airplane", "cifar100": "apple"}
    for name, first in named.items():
        data = load_dataset(name, root=str(tmp_path))
        mean = data.train_images.mean((0, 2, 3)) / 255
        np.testing.assert_allclose(mean, data.mean, atol=2e-4)
        assert np.unique(np.bincount(data.train_labels)).size == 1
        assert np.unique(np.bincount(data.test_labels)).tolist() == [10_000 // data.num_classes]
        assert data.class_names[0] == first
        for factor in (10, 50, 100, 200) if name.startswith("cifar") else ():
            drawn = long_tail(
                data.train_labels,
                data.num_classes,
                imbalance_factor=factor,
                profile="exponential",
                class_order="natural",
                seed=3,
            )
            np.testing.assert_array_equal(drawn, lists[f"{name}_if{factor}"])
