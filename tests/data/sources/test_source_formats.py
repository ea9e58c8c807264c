"""Folder, list, csv, npz and Hugging Face give the labels and pixels of one set of images."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from image_trees import (
    COLUMNS,
    COUNTS,
    SIZE,
    arrays,
    noise,
    rows,
    save_hugging_face,
    write_image,
    write_lists,
    write_table,
    write_tree,
)
from PIL import Image

from fedlt.data.datasets import load_dataset
from fedlt.errors import FedltError

EXPECTED = {
    part: np.stack(
        [noise(path, (*SIZE, 3)).transpose(2, 0, 1) for own, path, _, _ in rows() if own == part]
    )
    for part in COUNTS
}


@pytest.fixture(scope="module")
def top(tmp_path_factory):
    """A folder with the images in every format."""
    top = tmp_path_factory.mktemp("formats")
    write_tree(top / "tree")
    write_lists(top)
    write_table(top)
    np.savez(top / "plain.npz", **arrays())
    np.savez_compressed(top / "packed.npz", **arrays(clients=False))
    (top / "loose").mkdir()
    for key, array in arrays(clients=False).items():
        np.save(top / "loose" / f"{key}.npy", array)
    return top


@pytest.fixture(autouse=True)
def _cached(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDLT_DATA", str(tmp_path / "data"))


def options(top: Path, name: str) -> tuple[str, dict[str, object]]:
    return {
        "folder": ("folder", {"path": f"{top}/tree"}),
        "list": (
            "list",
            {"train": f"{top}/train.txt", "test": f"{top}/test.txt", "root": f"{top}/tree"},
        ),
        "csv": ("csv", {"path": f"{top}/all.csv", "root": f"{top}/tree", "columns": COLUMNS}),
        "npz": ("npz", {"path": f"{top}/plain.npz"}),
        "packed": ("npz", {"path": f"{top}/packed.npz"}),
        "loose": ("npz", {"path": f"{top}/loose"}),
    }[name]


def check(data, names=("ant", "bee", "cat dog")):
    assert data.class_names == names
    np.testing.assert_array_equal(data.train_images, EXPECTED["train"])
    np.testing.assert_array_equal(data.test_images, EXPECTED["test"])
    assert data.train_labels.tolist() == [0] * 5 + [1] * 3 + [2]
    assert data.test_labels.tolist() == [0, 0, 1, 1]  # class 2 has no test image


@pytest.mark.parametrize("format", ["folder", "csv", "npz", "packed", "loose"])
def test_every_format_gives_the_same_labels_and_pixels(top, format):
    name, given = options(top, format)
    check(load_dataset(name, options=given))


def test_a_list_gives_the_same_with_its_own_labels_as_names(top):
    name, given = options(top, "list")
    check(load_dataset(name, options=given), names=("1", "2", "3"))


def test_a_hugging_face_set_gives_the_same_and_sorts_the_names_of_its_classes(top, tmp_path):
    pytest.importorskip("datasets")
    path = save_hugging_face(tmp_path / "hf", top / "tree")
    data = load_dataset("huggingface", options={"path": str(path)})
    check(data)
    assert data.client_names == ("user 0", "user 1")
    assert data.test_clients.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("format", ["csv", "npz"])
def test_client_ids_become_numbers_with_names(top, format):
    name, given = options(top, format)
    data = load_dataset(name, options=given)
    assert data.client_names == ("user 0", "user 1")
    assert data.train_clients.tolist() == [0, 1, 0, 1, 0, 0, 1, 0, 0]
    assert data.test_clients.tolist() == [0, 1, 0, 1]


def test_a_list_may_end_in_clients(top, tmp_path):
    write_lists(tmp_path, clients=True)
    given = {"train": f"{tmp_path}/train.txt", "test": f"{tmp_path}/test.txt", "clients": True}
    data = load_dataset("list", options={**given, "root": f"{top}/tree"})
    check(data, names=("1", "2", "3"))
    assert data.client_names == ("user0", "user1")
    first = (tmp_path / "train.txt").read_text().splitlines()
    (tmp_path / "train.txt").write_text("\n".join([first[0].replace("user0", "-"), *first[1:]]))
    data = load_dataset("list", options={**given, "root": f"{top}/tree"})
    assert data.train_clients.tolist() == [-1, 1, 0, 1, 0, 0, 1, 0, 0]


def test_images_of_every_kind_become_one_size_and_three_channels(tmp_path):
    """Grey, opaque, palette, 16-bit and wide images, against PIL and torchvision."""
    from torchvision.transforms import v2

    makes = {
        "grey.png": Image.fromarray(noise("grey", (30, 20))),
        "opaque.png": Image.fromarray(noise("opaque", (25, 40, 4))),
        "palette.gif": Image.fromarray(noise("palette", (21, 33))).convert("P"),
        "wide.png": Image.fromarray(noise("wide", (16, 90, 3))),
    }
    for name, image in makes.items():
        for part, label in (("train", "a"), ("train", "b"), ("test", "a")):
            place = tmp_path / "odd" / part / label / name
            place.parent.mkdir(parents=True, exist_ok=True)
            image.save(place)
    data = load_dataset("folder", options={"path": f"{tmp_path}/odd", "image_size": 16})
    resize = v2.Compose([v2.Resize(16, antialias=True), v2.CenterCrop(16)])
    for row, name in enumerate(sorted(makes)):
        with Image.open(tmp_path / "odd/train/a" / name) as image:
            wanted = np.asarray(resize(image.convert("RGB"))).transpose(2, 0, 1)
        np.testing.assert_array_equal(data.train_images[row], wanted, err_msg=name)
    given = {"path": f"{tmp_path}/odd", "image_size": [10, 14], "channels": 4}
    assert load_dataset("folder", options=given).train_images.shape == (8, 4, 10, 14)
    given = {"path": f"{tmp_path}/odd", "image_size": 16, "channels": 1}
    assert load_dataset("folder", options=given).train_images.shape == (8, 1, 16, 16)


def test_sixteen_bits_keep_their_upper_half(tmp_path):
    values = np.array([[0, 255, 256, 65535]] * 4, np.uint16)
    for part, label in (("train", "a"), ("train", "b"), ("test", "a")):
        (tmp_path / part / label).mkdir(parents=True)
        Image.fromarray(values).save(tmp_path / part / label / "x.png")
    data = load_dataset("folder", options={"path": str(tmp_path), "channels": 1})
    assert data.train_images[0, 0, 0].tolist() == [0, 0, 1, 255]


def test_unequal_sizes_name_two_files_and_the_repair(tmp_path):
    write_tree(tmp_path)
    write_image(tmp_path / "train/ant/9.png", (30, 30, 3))
    with pytest.raises(FedltError) as caught:
        load_dataset("folder", options={"path": str(tmp_path)})
    line = str(caught.value)
    for part in ("ant/0.png: 12 x 20 pixels", "ant/9.png: 30 x 30 pixels", "image_size"):
        assert part in line
    assert not list(Path(tmp_path / "data").rglob("*.npy"))


@pytest.mark.parametrize("val", ["val", "valid", "validation"])
def test_validation_images_are_the_test_images_where_there_are_no_others(tmp_path, val):
    write_tree(tmp_path)
    shutil.move(tmp_path / "test", tmp_path / val)
    data = load_dataset("folder", options={"path": str(tmp_path)})
    assert (len(data.test_labels), data.validation_labels) == (4, None)
    shutil.copytree(tmp_path / val, tmp_path / "test")
    data = load_dataset("folder", options={"path": str(tmp_path)})
    assert len(data.validation_labels) == 4


def test_folders_of_classes_alone_need_a_share_for_the_test(tmp_path):
    write_tree(tmp_path)
    given = {"path": f"{tmp_path}/train"}
    with pytest.raises(FedltError, match=r"no folder 'test'.*test_share=0.2"):
        load_dataset("folder", options=given)
    data = load_dataset("folder", options={**given, "test_share": 0.4})
    assert np.bincount(data.test_labels, minlength=3).tolist() == [2, 1, 0]
    assert np.bincount(data.train_labels).tolist() == [3, 2, 1]  # a class keeps an image
    pixels = np.concatenate([data.train_images, data.test_images])
    assert {image.tobytes() for image in pixels} == {x.tobytes() for x in EXPECTED["train"]}
    with pytest.raises(FedltError, match="above 0 and below 1, got 2"):
        load_dataset("folder", options={**given, "test_share": 2})


def test_tiny_imagenet_is_read_as_it_is_unpacked(tmp_path):
    """train/<class>/images/*, val/images/* with a list of classes, test/images/* without labels."""
    for name in ("n01", "n02"):
        write_image(tmp_path / f"train/{name}/images/{name}_0.JPEG")
    for place in ("val/images/val_0.JPEG", "val/images/val_1.JPEG", "test/images/test_0.JPEG"):
        write_image(tmp_path / place)
    (tmp_path / "train/n01/n01_boxes.txt").write_text("0 0 1 1")
    lines = "val_0.JPEG\tn02\t0\t0\t9\t9\nval_1.JPEG\tn01\t0\t0\t9\t9\n"
    (tmp_path / "val/val_annotations.txt").write_text(lines)
    data = load_dataset("folder", options={"path": str(tmp_path)})
    assert data.class_names == ("n01", "n02")
    assert data.train_labels.tolist() == [0, 1]
    assert data.test_labels.tolist() == [1, 0]


@pytest.mark.parametrize("nested", [True, False])
def test_a_list_finds_ilsvrc_s_validation_images_in_either_layout(tmp_path, nested, capsys):
    for name in ("n01", "n02"):
        write_image(tmp_path / f"train/{name}/0.png")
        write_image(tmp_path / (f"val/{name}/v_{name}.png" if nested else f"val/v_{name}.png"))
    (tmp_path / "a_train.txt").write_text("train/n01/0.png 0\ntrain/n02/0.png 1\n")
    listed = ("val/v_{0}.png", "val/{0}/v_{0}.png")[not nested]
    lines = [f"{listed.format(name)} {label}\n" for label, name in enumerate(("n01", "n02"))]
    (tmp_path / "a_test.txt").write_text("".join(lines))
    given = {"train": f"{tmp_path}/a_train.txt", "test": f"{tmp_path}/a_test.txt"}
    data = load_dataset("list", options=given)
    assert (data.name, data.test_labels.tolist()) == ("a", [0, 1])
    words = "class folders" if nested else "no class folders"
    assert f"a_test.txt: its images lie in {words} here (val/" in capsys.readouterr().err


def test_a_table_finds_images_by_name_in_all_folders(tmp_path):
    """As HAM10000's table has them: an id without suffix, in one of two folders."""
    for number, place in enumerate(("part_1/a.jpg", "part_2/b.jpg", "part_2/c.jpg")):
        write_image(tmp_path / place, (8 + 0 * number, 8, 3))
    table = tmp_path / "meta.csv"
    table.write_text("image_id,dx,split\na,nv,train\nb,mel,train\nc,nv,test\n")
    columns = {"path": "image_id", "label": "dx"}
    data = load_dataset("csv", options={"path": str(table), "columns": columns})
    assert data.class_names == ("mel", "nv")
    write_image(tmp_path / "part_1/c.png", (8, 8, 3))
    with pytest.raises(FedltError, match=r"meta.csv, line 4: several images are called so"):
        load_dataset("csv", options={"path": str(table), "columns": columns})


def test_the_parts_of_a_table_may_be_tables_of_their_own(tmp_path):
    """As iNaturalist-User's: the test table has no column of users."""
    write_tree(tmp_path)
    for part in COUNTS:
        own = [row for row in rows() if row[0] == part]
        head = "user_id,image_id,class" if part == "train" else "image_id,class"
        who = "7," if part == "train" else ""
        lines = [f"{who}{path},{name}" for _, path, name, _ in own]
        (tmp_path / f"{part}.csv").write_text("\n".join([head, *lines]))
    columns = {"path": "image_id", "label": "class", "client": "user_id"}
    given = {"path": f"{tmp_path}/train.csv", "test_path": f"{tmp_path}/test.csv"}
    data = load_dataset("csv", options={**given, "columns": columns})
    check(data)
    assert (data.client_names, data.test_clients) == (("7",), None)


def test_an_unequal_pool_is_used_as_it_stands(top):
    name, given = options(top, "folder")
    data = load_dataset(name, options=given)
    assert data.long_tailed
    assert np.bincount(data.train_labels).tolist() == [5, 3, 1]
