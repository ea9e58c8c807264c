"""Comparison files: rows, what they share, and what a wrong one is answered with."""

from __future__ import annotations

import pytest

from fedlt.comparing.comparison import read_comparison
from fedlt.config import config_hash, load_config
from fedlt.errors import FedltError

BASE = """
name: tiny
seeds: [1, 2]
rounds: 2
data: {dataset: synthetic}
partition: {num_clients: 4}
strategy: {name: fedloge, sparsity: 0.5}
local: {lr: 0.3, epochs: 2}
engine: {name: serial}
"""
ROWS = """
compare:
  search: {local.lr: [0.1, 0.2]}
  rows:
    Plain: {strategy: fedavg}
    "Its own: x": {local: {lr: 0.7}, search: {local.lr: [0.5], local.epochs: [1, 2]}}
"""


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "c.yaml"
        path.write_text(BASE + text, encoding="utf-8")
        return path

    return write


def test_rows_change_what_they_name_and_keep_the_rest(file, tmp_path):
    comparison = read_comparison(file(ROWS), [f"output={tmp_path}", "rounds=3"])
    plain, own = comparison.rows
    first, second = comparison.configs(plain)
    assert (first.strategy.name, first.strategy.options) == ("fedavg", {})  # replaced whole
    assert (first.local.lr, first.local.epochs, first.rounds) == (0.3, 2, 3)
    assert (first.seed, second.seed, second.seeds) == (1, 2, None)
    assert first.output == f"{tmp_path}/tiny"
    (other, _) = comparison.configs(own)
    assert other.name == "its-own-x"
    assert (other.strategy.name, other.local.lr, other.local.epochs) == ("fedloge", 0.7, 2)
    assert own.search == {"local.lr": [0.5], "local.epochs": [1, 2]}
    assert plain.search == {"local.lr": [0.1, 0.2]}


def test_a_row_changes_a_model_that_is_a_name(file):
    rows = "model: resnet8\ncompare: {rows: {A: {model: {width: 4}}, B: {model: mlp}}}\n"
    comparison = read_comparison(file(rows))
    found = [comparison.configs(row)[0].model for row in comparison.rows]
    assert [(one.name, one.width) for one in found] == [("resnet8", 4), ("mlp", None)]


def test_a_row_is_the_run_of_the_same_file_without_rows(file, tmp_path):
    comparison = read_comparison(file(ROWS))
    alone = tmp_path / "alone.yaml"
    alone.write_text(BASE, encoding="utf-8")
    wanted = load_config(alone, ["strategy=fedavg"]).runs()[0]
    assert config_hash(comparison.configs(comparison.rows[0])[0]) == config_hash(wanted)


def test_rows_may_be_named_on_the_command_line(file):
    comparison = read_comparison(
        file(""), strategies=["fedavg", "fedloge"], clients=["cross_entropy", "balanced_softmax"]
    )
    assert [row.slug for row in comparison.rows] == [
        "fedavg-cross-entropy", "fedavg-balanced-softmax",
        "fedloge-cross-entropy", "fedloge-balanced-softmax",
    ]  # fmt: skip
    config = comparison.configs(comparison.rows[1])[0]
    assert (config.strategy.name, config.client.name) == ("fedavg", "balanced_softmax")
    assert [r.label for r in read_comparison(file(ROWS), only=["Plain"]).rows] == ["Plain"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["no section 'compare'", "give strategies"]),
        ("compare: 3", ["compare: expected a mapping with rows"]),
        ("compare: {rows: {}}", ["no row"]),
        ("compare: {rows: {A: {}}, serach: {}}", ["compare.serach", "nearest: 'search'"]),
        ("compare: {rows: {A: 3}}", ["compare.rows.A", "got 3"]),
        ("compare: {rows: {A: {search: {local.lr: 0.1}}}}", ["compare.rows.A.search", "values"]),
        ("compare: {rows: {A b: {}, a-B: {}}}", ["'a-B'", "'A b' has the same folder"]),
        ("compare: {rows: {日本: {}}}", ["'日本'", "letters a to z and digits"]),
        ("compare: {rows: {Sweep: {}}}", ["'Sweep'", "that of fedlt sweep"]),
        ("compare: {rows: {A: {}, B: {seeds: [2]}}}", ["compare.rows.B.seeds", "all rows"]),
        ("compare: {rows: {A: {name: other}}}", ["compare.rows.A.name", "all rows"]),
    ],
)
def test_wrong_files_get_one_line(file, text, words):
    with pytest.raises(FedltError) as error:
        read_comparison(file(text))
    assert all(word in str(error.value) for word in words), error.value


def test_name_on_the_command_line_names_the_folder(file, tmp_path):
    comparison = read_comparison(file(ROWS), [f"output={tmp_path}", "name=other"])
    assert comparison.name == "other"
    assert comparison.folder() == tmp_path / "other"
    assert comparison.configs(comparison.rows[0])[0].name == "plain"  # the row's folder in it


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("strategy=ditto", "row 'Plain' has its own strategy"),
        ("strategy.name=ditto", "row 'Plain' has its own strategy"),
        ("strategy={name: ditto}", "row 'Plain' has its own strategy"),
    ],
)
def test_a_row_stays_what_its_label_says(file, override, words):
    with pytest.raises(FedltError, match=words):
        read_comparison(file(ROWS), [override])
    assert read_comparison(file(ROWS), ["client=focal", "strategy.sparsity=0.1"])
    with pytest.raises(FedltError, match="--strategies: fedavg is given twice"):
        read_comparison(file(""), strategies=["fedavg", "fedavg"])


def test_the_only_row_of_a_search_is_named_by_its_method(file):
    space = {"local.lr": [0.1, 0.2]}
    assert read_comparison(file(""), search=space).rows[0].label == "fedloge"
    assert read_comparison(file(""), ["strategy=ditto"], search=space).rows[0].label == "ditto"


def test_a_wrong_row_is_named(file):
    comparison = read_comparison(file("compare: {rows: {A: {local: {lrr: 1.0}}}}"))
    with pytest.raises(FedltError, match=r"row 'A'.*local\.lrr.*lr"):
        comparison.configs(comparison.rows[0])
    with pytest.raises(FedltError, match=r"no row 'Plian'; nearest: 'Plain'"):
        read_comparison(file(ROWS), only=["Plian"])
    with pytest.raises(FedltError, match="fedlt compare FILE runs its rows"):
        load_config(file(ROWS))
