"""Mistakes in files and options of data sets: one line with the file, the line and the repair."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from image_trees import COLUMNS, arrays, write_image, write_lists, write_table, write_tree

from fedlt.data.datasets import load_dataset
from fedlt.errors import FedltError


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEDLT_DATA", "data")


def refused(dataset: str, **options: object) -> str:
    """Return the one line of a data set that is refused, and check that no cache file is there."""
    with pytest.raises(FedltError) as caught:
        load_dataset(dataset, options=options)
    line = str(caught.value)
    assert "\n" not in line
    assert not list(Path("data").rglob("*.npy")) + list(Path("data").rglob("*.part"))
    return line


def test_a_missing_folder_names_the_nearest(tmp_path):
    write_tree(tmp_path / "images")
    line = refused("folder", path=f"{tmp_path}/imagse")
    assert line == f"data.options.path: no folder '{tmp_path}/imagse'; nearest: 'images'"


def test_unknown_options_name_the_nearest():
    assert "'folder' has no 'pth'; nearest: 'path'" in refused("folder", pth="x")
    assert "'cache'" not in refused("folder", pth="x")
    assert "'list' needs 'train'" in refused("list")
    assert "'folder' has no 'cache'" in refused("folder", path="x", cache="y")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"image_size": 0}, "image_size: must be an integer above 0"),
        ({"image_size": [3, 4, 5]}, "list [height, width], got [3, 4, 5]"),
        ({"channels": 2}, "channels: must be 1, 3 or 4, got 2"),
        ({"expect": "imagenet_tl"}, "unknown 'imagenet_tl'; nearest: 'imagenet_lt'"),
    ],
)
def test_options_of_images_are_checked(tmp_path, options, words):
    write_tree(tmp_path / "tree")
    assert words in refused("folder", path=f"{tmp_path}/tree", **options)


def test_a_folder_without_classes_or_images_is_said():
    Path("top/train").mkdir(parents=True)
    assert "needs one, with its images" in refused("folder", path="top")
    Path("top/train/cat").mkdir()
    assert "no images in its folders cat" in refused("folder", path="top")
    Path("other/test/cat").mkdir(parents=True)
    assert "has no folder 'train'; it has test" in refused("folder", path="other")


def test_a_class_without_training_images_is_named():
    write_tree(Path("tree"))
    write_image(Path("tree/test/zebra/0.png"))
    line = refused("folder", path="tree")
    assert "zebra/0.png: class 'zebra' has a test image, but no training image" in line


def test_one_class_is_not_enough():
    write_image(Path("tree/train/cat/0.png"))
    write_image(Path("tree/test/cat/0.png"))
    with pytest.raises(FedltError, match="all images are of class 'cat'"):
        load_dataset("folder", options={"path": "tree"})


@pytest.mark.parametrize("content", [b"no image", None])
def test_an_unreadable_image_is_named_and_leaves_no_file(content):
    write_tree(Path("tree"))
    broken = Path("tree/train/bee/1.png")
    broken.write_bytes(broken.read_bytes()[:200] if content is None else content)
    line = refused("folder", path="tree")
    assert line.startswith("1 of 9 images cannot be read: ")
    assert "tree/train/bee/1.png: not an image that can be read" in line


def test_all_broken_images_of_a_part_are_counted():
    """Of ant 5, bee 3 and cat dog 1 images: one ant and two bees, the ant first."""
    write_tree(Path("tree"))
    for name in ("bee/2", "ant/3", "bee/0"):
        Path(f"tree/train/{name}.png").write_bytes(b"no image")
    line = refused("folder", path="tree")
    assert line.startswith("3 of 9 images cannot be read; the first: ")
    assert "tree/train/ant/3.png: not an image" in line


def test_a_list_names_the_line_of_a_missing_file_and_of_a_missing_label():
    write_tree(Path("tree"))
    write_lists(Path("."))
    given = {"train": "train.txt", "test": "test.txt", "root": "tree"}
    lines = Path("train.txt").read_text().splitlines()
    Path("train.txt").write_text("\n".join([*lines[:2], "train/ant/nine.png 1", *lines[2:]]))
    line = refused("list", **given)
    assert line == "train.txt, line 3: tree/train/ant/nine.png: No such file or directory"
    Path("train.txt").write_text("\n".join([*lines[:4], "", "train/ant/0.png"]))
    assert "train.txt, line 6: needs path and label" in refused("list", **given)
    assert "data.options.test: no file 'tets.txt'; nearest: 'test.txt'" in refused(
        "list", **{**given, "test": "tets.txt"}
    )


def test_a_table_names_columns_and_lines():
    write_tree(Path("tree"))
    table = write_table(Path("."))
    given = {"path": "all.csv", "root": "tree"}
    line = refused("csv", **given, columns={**COLUMNS, "label": "specie"})
    assert "columns.label: all.csv has no column 'specie'; nearest: 'species'" in line
    assert "unknown 'lable'; nearest: 'label'" in refused("csv", **given, columns={"lable": "x"})
    text = table.read_text().splitlines()
    table.write_text("\n".join(text[1:]))
    assert refused("csv", **given, columns=COLUMNS) == (
        "all.csv: the first line must name the columns; it is: train/ant/0.png, ant, user 0, train;"
        " data.options.columns says which column is which"
    )
    table.write_text("\n".join([*text[:3], text[3].replace("train", "trian", 2), *text[4:]]))
    line = refused("csv", **given, columns=COLUMNS)
    table.write_text("\n".join([*text[:3], text[3] + "x", *text[4:]]))
    line = refused("csv", **given, columns=COLUMNS)
    assert "all.csv, line 4: unknown split 'trainx'; nearest: 'train'" in line
    table.write_text("\n".join([*text[:3], "train/ant/0.png;ant", *text[4:]]))
    assert "all.csv, line 4: has 2 cells, the head 4" in refused("csv", **given, columns=COLUMNS)
    table.write_text("\n".join([*text[:3], text[3].replace(";ant;", ";;"), *text[4:]]))
    assert "all.csv, line 4: " in (line := refused("csv", **given, columns=COLUMNS))
    assert line.endswith("has no label")
    table.write_text("\n".join([*text[:3], text[3].replace("/ant/", "/ant/9"), *text[4:]]))
    assert "all.csv, line 4: tree/" in refused("csv", **given, columns=COLUMNS)


def test_an_array_that_is_missing_or_does_not_fit_is_named():
    given = arrays()
    np.savez("a.npz", **{key: one for key, one in given.items() if key != "test_labels"})
    assert "a.npz: has no 'test_labels'; nearest: " in refused("npz", path="a.npz")
    np.savez("a.npz", **{**given, "train_labels": given["train_labels"][1:]})
    assert "a.npz, train_labels: 8 labels for 9 rows of a.npz" in refused("npz", path="a.npz")
    np.savez("a.npz", **{**given, "train_images": given["train_images"].astype(np.int32)})
    assert "a.npz, train_images must be uint8, or floats" in refused("npz", path="a.npz")
    names = given["train_labels"].astype(object)
    np.savez("a.npz", allow_pickle=True, **{**given, "train_labels": names})
    assert "train_labels: holds Python objects" in refused("npz", path="a.npz")
    whole = Path("a.npz").read_bytes()
    Path("a.npz").write_bytes(whole[: len(whole) // 2])
    assert "a.npz: cannot be read" in refused("npz", path="a.npz")


def test_features_must_be_float_vectors():
    np.savez("f.npz", train_features=np.zeros((4, 3), int), test_features=np.zeros((4, 3)))
    line = refused("features", path="f.npz")
    assert "f.npz, train_features: features must be float (N, d)" in line


def test_a_hugging_face_set_is_refused_in_one_line(monkeypatch):
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()

    def fail(name):
        raise ConnectionError("Couldn't reach 'mnist' on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    line = refused("huggingface", name="mnist")
    assert "'mnist' cannot be loaded from the hub, which needs the network" in line
    assert "Couldn't reach" in line
    assert "needs path or name" in refused("huggingface")
    Path("empty").mkdir()
    assert "'empty' is not a folder that save_to_disk wrote" in refused("huggingface", path="empty")
    table = datasets.Dataset.from_dict({"pixels": [[1], [2]], "label": [0, 1]})
    datasets.DatasetDict({"train": table, "test": table}).save_to_disk("hf")
    line = refused("huggingface", path="hf")
    assert "data.options.image: hf, train has no column 'image'" in line
    assert "not datasets.Image()" in refused("huggingface", path="hf", image="pixels")
