"""Images that belong to nobody, clients that are spelt otherwise, and data without clients."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from image_trees import arrays, rows, save_hugging_face, write_lists, write_tree

from fedlt.cli import main
from fedlt.config import DataConfig, PartitionConfig
from fedlt.data import prepare_data
from fedlt.errors import FedltError

HEAD = "path,label,client,split"
NATURAL = "partition.scheme: natural needs client numbers, which the data set does not have; "


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEDLT_DATA", "data")
    write_tree(Path("tree"))


def lines(*, empty=(), test_client=""):
    """Return the lines of a table; the training images ``empty`` have no client."""
    found = []
    for number, (part, path, name, who) in enumerate(rows()):
        own = test_client or who if part == "test" else dict(empty).get(number, who)
        found.append(f"{path},{name},{own},{part}")
    return found


def write_csv(*, head=HEAD, **changes):
    Path("meta.csv").write_text("\n".join([head, *lines(**changes)]) + "\n")
    return {"path": "meta.csv", "root": "tree"}


def prepared(dataset, options, **partition):
    data = DataConfig(dataset=dataset, options=options)
    return prepare_data(data, PartitionConfig(scheme="natural", **partition), seed=1)


def test_an_empty_cell_and_a_dash_are_nobody():
    """Two of the nine training images have no client."""
    options = write_csv(empty={0: "", 3: "-"})
    with pytest.raises(FedltError) as caught:
        prepared("csv", options)
    assert str(caught.value) == (
        "partition.scheme: natural: 2 of 9 images have no client number; "
        "partition.uncovered=drop trains without them"
    )
    data = prepared("csv", options, uncovered="drop")
    assert data.partition.num_dropped == 2
    assert data.client_names == ("user 0", "user 1")


def test_an_array_and_a_hugging_face_set_may_lack_clients():
    given = arrays()
    given["train_clients"][1] = ""
    np.savez("a.npz", **given)
    assert prepared("npz", {"path": "a.npz"}, uncovered="drop").partition.num_dropped == 1
    datasets = pytest.importorskip("datasets")
    save_hugging_face(Path("hf"), Path("tree"))
    found = datasets.load_from_disk("hf")
    owners = [None, *found["train"]["client"][1:]]
    found["train"] = found["train"].remove_columns("client").add_column("client", owners)
    found.save_to_disk("hf2")
    assert prepared("huggingface", {"path": "hf2"}, uncovered="drop").partition.num_dropped == 1


@pytest.mark.parametrize(
    ("dataset", "hint"),
    [
        (
            "csv",
            "data.options.columns.client names the column that has them; "
            "columns: path, label, site, split",
        ),
        ("list", "data.options.clients=true reads them from the last word of a line: "),
        ("npz", "the array train_clients of a.npz would hold them"),
        ("folder", "csv, list, npz, features, huggingface and dataset_from_arrays can give them"),
    ],
)
def test_natural_clients_that_are_missing_lead_to_what_to_do(dataset, hint):
    write_lists(Path())
    np.savez("a.npz", **arrays(clients=False))
    options = {
        "csv": write_csv(head="path,label,site,split"),
        "list": {"train": "train.txt", "test": "test.txt", "root": "tree"},
        "npz": {"path": "a.npz"},
        "folder": {"path": "tree"},
    }[dataset]
    with pytest.raises(FedltError) as caught:
        prepared(dataset, options)
    assert str(caught.value).startswith(NATURAL + hint)


def test_a_hugging_face_set_without_clients_has_its_columns_named():
    datasets = pytest.importorskip("datasets")
    save_hugging_face(Path("hf"), Path("tree"))
    datasets.load_from_disk("hf").rename_column("client", "writer").save_to_disk("hf2")
    with pytest.raises(FedltError, match=r"data.options.client names .*: image, label, writer"):
        prepared("huggingface", {"path": "hf2"})


def test_ids_of_test_images_that_no_training_image_has():
    """All four test images are of Rural, which the training part spells otherwise."""
    data = prepared("csv", write_csv(test_client="Rural"))
    line = "4 test images belong to clients without training images"
    assert data.strangers_note(named=False) == line
    assert data.strangers_note(named=True) == f"{line}: 'Rural'"
    assert prepared("csv", write_csv()).strangers_note(named=True) == ""
    drawn = prepare_data(
        DataConfig(dataset="csv", options=write_csv(test_client="Rural")),
        PartitionConfig(num_clients=2),
        seed=1,
    )
    assert drawn.strangers_note(named=True) == ""


def test_at_most_three_strangers_are_named():
    given = arrays()
    given["test_clients"] = np.array(["d", "c", "b", "a"])
    np.savez("a.npz", **given)
    note = prepared("npz", {"path": "a.npz"}).strangers_note(named=True)
    assert note.endswith("training images: 'a', 'b', 'c' and 1 more")


def test_names_of_strangers_are_shown_by_inspect_and_prepare_but_not_by_a_run(capsys):
    write_csv(test_client="Rural")
    Path("mine.yaml").write_text(
        "name: mine\nrounds: 1\nmodel: {width: 2}\nengine: {name: serial}\n"
        "data: {dataset: csv, options: {path: meta.csv, root: tree, image_size: 8}}\n"
        "partition: {scheme: natural}\n"
    )
    for words in (["data", "prepare"], ["inspect"]):
        assert main([*words, "mine.yaml"]) == 0
        captured = capsys.readouterr()
        assert "without training images: 'Rural'" in captured.out + captured.err
    assert main(["run", "mine.yaml"]) == 0
    captured = capsys.readouterr()
    assert "4 test images belong to clients without training images\n" in captured.err
    assert "Rural" not in captured.out + captured.err
    assert not [p for p in Path("runs").rglob("*") if p.is_file() and b"Rural" in p.read_bytes()]
    assert main(["run", "mine.yaml", "report.client_names=true", "name=named"]) == 0
    assert "without training images: 'Rural'" in capsys.readouterr().err
