"""Names of classes in pages, pictures and tables; digits, whose names are numbers, stay as is."""

from __future__ import annotations

import pytest
from report_pages import parse, table

from fedlt.cli import main
from fedlt.report.class_words import are_numbers, class_words
from fedlt.report.figures.classes import class_accuracy
from fedlt.report.figures.per_client import partition_and_accuracy
from fedlt.report.finished import read_runs

DATA = """
import numpy as np
from fedlt.data import dataset_from_arrays

def load():
    images = np.random.default_rng(0).integers(0, 256, (40, 6, 6), dtype=np.uint8)
    labels = np.array(["robin"] * 20 + ["wren, small"] * 12 + ["owl"] * 8)
    tested = labels != "owl"
    return dataset_from_arrays("birds", images, labels, images[tested], labels[tested],
                               long_tailed=True)
"""
YAML = """
{name: birds, rounds: 1, data: {dataset: "birds.py:load"}, partition: {num_clients: 2},
 model: {name: mlp, width: 4}, engine: {name: serial}}
"""


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["0", "1", "2"], ["0", "1", "2"]),
        (["robin", "owl"], ["robin", "owl"]),
        (["1", "2"], ["0 1", "1 2"]),  # a name that is another class's number
        (["robin", "black-throated diver"], ["0 robin", "1 black-throa..."]),
        ([f"c{n}" for n in range(21)], [f"{n} c{n}" for n in range(21)]),
    ],
)
def test_words_are_short_and_tell_classes_apart(names, words):
    assert class_words(names) == words
    assert are_numbers(names) == (names == ["0", "1", "2"])


@pytest.fixture(scope="module")
def birds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("birds")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (folder / "birds.py").write_text(DATA)
        (folder / "a.yaml").write_text(YAML)
        assert main(["run", "a.yaml"]) == 0
        assert main(["report", "runs/birds/1", "--output", "page.html"]) == 0
    return folder


def test_a_page_names_classes(birds):
    page = parse(birds / "page.html")
    _, rows = table(page, "Generic model")
    assert [row[0] for row in rows] == ["robin", "wren, small", "owl, no test images"]
    assert [row[1] for row in rows] == [20.0, 12.0, 8.0]
    _, clients = table(page, "Clients")
    assert any("robin: " in row[2] for row in clients)
    assert "(owl) and weighs nothing" in (birds / "page.html").read_text()


def test_pictures_name_classes(birds):
    methods = read_runs([birds / "runs/birds/1"]).methods
    axes = class_accuracy(methods)[0].figure.axes
    ticks = {text.get_text() for one in axes for text in one.get_xticklabels()}
    assert {"robin (20)", "wren, small (12)", "owl (8) no test"} <= ticks
    axes = partition_and_accuracy(methods)[0].figure.axes
    ticks = {text.get_text() for one in axes for text in one.get_xticklabels()}
    assert {"robin", "wren, small", "owl"} <= ticks


def test_digits_are_classes_by_number(comparison):
    axes = class_accuracy(read_runs([comparison]).methods)[0].figure.axes
    ticks = [text.get_text().split("\n")[0] for one in axes for text in one.get_xticklabels()]
    assert {"0", "1", "2", "3"} <= {*ticks}


def test_the_table_of_a_run_names_classes(birds, monkeypatch, capsys):
    monkeypatch.chdir(birds)
    assert main(["rescore", "runs/birds/1"]) == 0
    assert "1 of 3 classes has no image (owl) and weighs nothing" in capsys.readouterr().out
