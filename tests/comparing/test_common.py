"""Files of many runs, where a command reads their common part: `inspect` and `data prepare`."""

from __future__ import annotations

import json

import pytest

from fedlt.cli import main
from fedlt.comparing.common import read_common

COMMON = """
name: c
rounds: 1
data: {dataset: synthetic, options: {num_classes: 3, train_per_class: 8, test_per_class: 4}}
partition: {num_clients: 3}
model: {name: mlp, width: 4, norm: group}
engine: {name: serial}
"""
ROWS = """
compare:
  rows:
    FedAvg: {}
    FedProx: {strategy: {name: fedprox, mu: 0.1}}
"""
MOVED = "row other changes data or partition; this is the common part of all rows"


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(text):
        path = tmp_path / "c.yaml"
        path.write_text(COMMON + text)
        return path

    return write


def test_the_common_part_of_a_comparison_is_that_of_the_experiment(write):
    alone, _ = read_common(write(""), ["local.lr=0.3"])
    assert read_common(write(ROWS), ["local.lr=0.3"]) == (alone, [])
    assert alone.local.lr == 0.3
    assert alone.partition.num_clients == 3


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ("    other: {partition: {num_clients: 4}}\n", MOVED),
        ("    a: {data: {}}\n    b: {partition: {}}\n", MOVED.replace("row other changes",
         "rows a, b change")),
        ("reproduce: {settings: {s: {data.imbalance_factor: 9}, t: {local.lr: 1}}}\n",
         MOVED.replace("row other", "setting s").replace("all rows", "all settings")),
    ],
)  # fmt: skip
def test_rows_and_settings_with_data_of_their_own_are_named(write, more, line):
    config, lines = read_common(write(ROWS + more))
    assert lines == [line]
    assert config.partition.num_clients == 3


def test_inspect_and_prepare_read_comparisons_and_run_says_what_to_do(write, capsys):
    write(ROWS + "    other: {partition: {num_clients: 4}}\n")
    assert main(["--json", "inspect", "c.yaml"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["client_counts"]) == 3
    assert found["notes"][0] == MOVED
    assert main(["data", "prepare", "c.yaml"]) == 0
    captured = capsys.readouterr()
    assert "nothing to prepare" in captured.out
    assert captured.err == f"{MOVED}\n"
    assert main(["run", "c.yaml"]) == 2
    line = "c.yaml: has a section 'compare'; fedlt compare FILE runs its rows"
    assert line in capsys.readouterr().err
