"""Published numbers of images are checked, and a missing data set says what to download."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from image_trees import noise, write_image, write_tree

from fedlt.data.datasets import load_dataset
from fedlt.data.sources.known_sets import KNOWN_SETS, check_counts, find_known
from fedlt.errors import FedltError


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEDLT_DATA", "data")


def test_imagenet_lt_with_an_image_too_few_is_refused_unless_told_to_go_on(capsys):
    for name in ("n01", "n02"):
        write_image(Path(f"{name}.png"), (4, 4, 3))
    Path("ImageNet_LT_train.txt").write_text("n01.png 0\n" * 3 + "n02.png 1\n" * 2)
    Path("ImageNet_LT_test.txt").write_text("n01.png 0\n")
    given = {"train": "ImageNet_LT_train.txt", "test": "ImageNet_LT_test.txt"}
    with pytest.raises(FedltError) as caught:
        load_dataset("list", options=given)
    assert str(caught.value) == (
        "ImageNet-LT: 5 train images found, 115,846 expected; data.options.strict=false goes on all"
        " the same"
    )
    data = load_dataset("list", options={**given, "strict": False})
    assert len(data.train_labels) == 5
    assert "50,000 expected" in capsys.readouterr().err
    known = KNOWN_SETS["imagenet_lt"]
    found = {"train": 115_845, "val": 20_000, "test": 50_000}
    with pytest.raises(FedltError, match="115,845 train images found, 115,846 expected"):
        check_counts(known, found, 1000, strict=True)
    assert check_counts(known, {**found, "train": 115_846}, 1000, strict=True) == []


def test_known_sets_are_recognised_by_the_names_of_their_files():
    assert find_known(None, "/x/iNaturalist18_train.txt") is KNOWN_SETS["inaturalist18"]
    assert find_known(None, "dermamnist_64.npz") is KNOWN_SETS["dermamnist"]
    assert find_known(None, "federated_train_user_120k.csv") is KNOWN_SETS["inat_user"]
    assert find_known(None, "mine.npz") is None
    assert find_known("cinic10", "mine.npz") is KNOWN_SETS["cinic10"]


def test_a_missing_known_set_says_what_to_download():
    with pytest.raises(FedltError) as caught:
        load_dataset("npz", options={"path": "dermamnist.npz"})
    line = str(caught.value)
    assert "no file 'dermamnist.npz'" in line
    assert "download dermamnist.npz from https://medmnist.com" in line
    assert "set data.options.path to its place" in line
    Path("Places_LT_train.txt").write_text("a/b.jpg 0\n")
    given = {"train": "Places_LT_train.txt", "test": "Places_LT_train.txt", "strict": False}
    with pytest.raises(FedltError, match=r"line 1: a/b.jpg: No such file.*Places365-Standard"):
        load_dataset("list", options=given)


def test_medmnist_is_read_as_it_is():
    """Keys, grey images (N, 28, 28), labels (N, 1), compressed as the project packs its files."""
    counts = {"train": 9, "val": 4, "test": 4}
    arrays = {
        **{f"{part}_images": noise(part, (n, 28, 28)) for part, n in counts.items()},
        **{f"{part}_labels": np.arange(n)[:, None] % 4 for part, n in counts.items()},
    }
    np.savez_compressed("mymnist.npz", **arrays)
    data = load_dataset("npz", options={"path": "mymnist.npz"})
    assert data.train_images.shape == (9, 1, 28, 28)
    np.testing.assert_array_equal(data.validation_images[:, 0], arrays["val_images"])
    assert data.train_labels.tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0]


def test_a_folder_is_checked_where_it_is_told_to():
    write_tree(Path("cinic"))
    with pytest.raises(FedltError, match="CINIC-10: 9 train images found, 90,000 expected"):
        load_dataset("folder", options={"path": "cinic", "expect": "cinic10"})
