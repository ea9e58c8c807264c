"""Recipes for images that only the user has: each runs on a small set of the same format.

The images lie where the file expects them, below a home directory of the test's own.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from image_trees import noise, write_image

from fedlt.cli import main
from fedlt.runs.directory import RunDirectory

ROOT = Path(__file__).resolve().parents[1]
CLASSES = ("n01", "n02", "n03")
TINY = [
    "rounds=1",
    "model.width=4",
    "engine.name=serial",
    "local.batch_size=8",
    "local.epochs=1",
    "data.options.strict=false",
]
FEW = ["partition.num_clients=2", "clients_per_round=2"]
SMALL = "data.options.image_size=16"


def lists(folder: Path, stem: str, root: Path, place: str) -> None:
    """Write lists of 6, 4 and 2 training images of three classes, and 2 of each class else."""
    for part, counts in (("train", (6, 4, 2)), ("val", (2, 2, 2)), ("test", (2, 2, 2))):
        lines = []
        for label, (name, count) in enumerate(zip(CLASSES, counts, strict=True)):
            for number in range(count):
                where = "val" if part == "test" else "train"
                path = place.format(part=where, name=name, number=f"{part}{number}")
                write_image(root / path, (20, 30, 3))
                lines.append(f"{path} {label}\n")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{stem}_{part}.txt").write_text("".join(lines))


def imagenet_lt(home: Path) -> list[str]:
    lists(
        home / "data/ImageNet_LT", "ImageNet_LT", home / "data/ImageNet",
        "{part}/{name}/{name}_{number}.JPEG",
    )  # fmt: skip
    # the disk has ILSVRC's validation images in one folder
    val = home / "data/ImageNet/val"
    for image in [*val.rglob("*.JPEG")]:
        image.rename(val / image.name)
    short = "strategy={name: creff, per_class: 2, match_steps: 2, retrain_epochs: 2}"
    return [*FEW, SMALL, short]


def places_lt(home: Path) -> list[str]:
    lists(
        home / "data/Places_LT", "Places_LT", home / "data/places365_standard",
        "data_256/{name[0]}/{name} room/{number}.jpg",
    )  # fmt: skip
    return [*FEW, SMALL]


def inat_user(home: Path) -> list[str]:
    images, tables = home / "data/inat2017/train_val_images", home / "data/inaturalist-user-120k"
    tables.mkdir(parents=True)
    rows, tests = ["user_id,image_id,class"], ["image_id,class"]
    for number in range(16):
        name = CLASSES[number % 3]
        write_image(images / f"Aves/{name} sp/hash{number}.jpg", (20, 30, 3))
        if number < 12:
            rows.append(f"{900 + number % 4},hash{number},{number % 3}")
        else:
            tests.append(f"hash{number},{number % 3}")
    (tables / "federated_train_user_120k.csv").write_text("\n".join(rows))
    (tables / "test.csv").write_text("\n".join(tests))
    return [SMALL, "clients_per_round=2", "evaluate.clients=all", "evaluate.personal_every=1"]


def derma(home: Path) -> list[str]:
    (home / ".medmnist").mkdir()
    arrays = {}
    for part, count in (("train", 30), ("val", 9), ("test", 9)):
        arrays[f"{part}_images"] = noise(part, (count, 28, 28, 3))
        arrays[f"{part}_labels"] = np.arange(count, dtype=np.uint8)[:, None] % 3
    np.savez_compressed(home / ".medmnist/dermamnist.npz", **arrays)
    return [*FEW[:1], "strategy.sparsity=0.0"]


def cinic10_lt(home: Path) -> list[str]:
    for part in ("train", "valid", "test"):
        for name in ("airplane", "truck"):
            for number in range(8):
                write_image(home / f"data/CINIC-10/{part}/{name}/{number}.png", (32, 32, 3))
    return [*FEW, "data.imbalance_factor=2"]


def tiny_imagenet_lt(home: Path) -> list[str]:
    top, lines = home / "data/tiny-imagenet-200", []
    for name in CLASSES:
        for number in range(8):
            write_image(top / f"train/{name}/images/{name}_{number}.JPEG", (64, 64, 3))
        write_image(top / f"val/images/val_{name}.JPEG", (64, 64, 3))
        lines.append(f"val_{name}.JPEG\t{name}\t0\t0\t62\t62\n")
    (top / "val/val_annotations.txt").write_text("".join(lines))
    write_image(top / "test/images/test_0.JPEG", (64, 64, 3))
    return [*FEW, SMALL, "data.imbalance_factor=2", "model.width=8"]


RECIPES = (imagenet_lt, places_lt, inat_user, derma, cinic10_lt, tiny_imagenet_lt)
each = pytest.mark.parametrize("make", RECIPES, ids=[make.__name__ for make in RECIPES])


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("FEDLT_DATA", raising=False)
    return tmp_path


@each
def test_it_starts_where_the_images_are(make, home, capsys):
    given = make(home)
    file = ROOT / f"experiments/{make.__name__}.yaml"
    assert main(["run", str(file), *TINY, *given]) == 0, capsys.readouterr().err
    assert " expected" in capsys.readouterr().err  # the published numbers differ
    result = RunDirectory(home / f"runs/{make.__name__}/1").result()
    assert 0 <= result["final"]["generic/accuracy"] <= 1


@each
def test_it_says_what_to_download_where_they_are_not(make, home, capsys):
    file = ROOT / f"experiments/{make.__name__}.yaml"
    assert main(["run", str(file), "engine.name=serial"]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "data.options." in line
    assert "download" in line
    assert "http" in line
    assert not (home / "runs").exists()


def test_there_are_no_others():
    text = {path.stem: path.read_text() for path in (ROOT / "experiments").glob("*.yaml")}
    found = {name for name, one in text.items() if "# Images:" in one}
    assert found == {make.__name__ for make in RECIPES}
