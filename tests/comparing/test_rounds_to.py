"""Rounds to accuracy: the crossing by hand, in a recipe, and as a column of a table."""

from __future__ import annotations

import json

import pytest

from fedlt.cli import main
from fedlt.comparing.recipes import read_recipe
from fedlt.comparing.rounds_to import crossing
from fedlt.errors import FedltError

# Best so far: .1, .5, .5, .9. Between rounds 6 (.5) and 10 (.9) it grows by .1 a round.
CURVE = [(2, 0.1), (4, 0.5), (6, 0.3), (10, 0.9), (12, 0.2)]


@pytest.mark.parametrize(
    ("level", "rounds"),
    [(0.1, 2), (0.05, 2), (0.3, 3), (0.5, 4), (0.6, 7), (0.9, 10), (0.91, None)],
)
def test_the_crossing_of_the_best_so_far(level, rounds):
    found = crossing(CURVE, level)
    assert found is None if rounds is None else found == pytest.approx(rounds)


def test_nothing_is_reached_without_an_evaluation():
    assert crossing([], 0.5) is None


FILE = """
name: c
seeds: [1]
rounds: 3
data: {dataset: synthetic, options: {num_classes: 3, train_per_class: 8, test_per_class: 4}}
partition: {num_clients: 2}
model: {name: mlp, width: 4, norm: group}
engine: {name: serial}
compare: {rows: {FedAvg: {}, FedProx: {strategy: {name: fedprox, mu: 0.1}}}}
"""
RECIPE = """
reproduce:
  about: made up
  quantity: {rounds_to: 0.01}
  figures:
    - {row: FedAvg, metric: generic/accuracy, moment: rounds_to, unit: number, tolerance: 0.5,
       source: table 1, value: 1.0}
"""
SCALE = """
  scales: {low: {purpose: to see, limits: another level, set: {}, rounds_to: 0.001}}
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(FILE)
    path = tmp_path / "r.yaml"
    path.write_text(FILE + RECIPE)
    return path


def test_a_column_of_a_table(file, tmp_path, capsys):
    words = ["--jobs", "1", "--no-report", "--rows", "FedAvg"]
    assert main(["compare", "c.yaml", "--rounds-to", "0.01", *words]) == 0
    row = (tmp_path / "runs/c/last_k.md").read_text().splitlines()
    head = next(line for line in row if line.startswith("| method"))
    assert head.endswith("| s / run | rounds to 1 % |")
    assert next(line for line in row if line.startswith("| FedAvg")).endswith("| 1.0 |")
    assert main(["compare", "c.yaml", "--rounds-to", "0.999", *words]) == 0
    row = (tmp_path / "runs/c/last_k.md").read_text()
    accuracies = [
        json.loads(line)["generic/accuracy"]
        for line in (tmp_path / "runs/c/fedavg/1/rounds.jsonl").read_text().splitlines()
    ]
    assert max(accuracies) < 0.999
    assert next(line for line in row.splitlines() if line.startswith("| FedAvg")).endswith("| - |")
    capsys.readouterr()
    assert main(["compare", "c.yaml", "--rounds-to", "90"]) == 2
    assert "--rounds-to: 90 is no share between 0 and 1" in capsys.readouterr().err


def test_a_figure_of_a_recipe(file, capsys):
    assert main(["reproduce", "r.yaml", "--jobs", "1", "--rows", "FedAvg"]) == 0
    assert "1 of 1 figures within tolerance" in capsys.readouterr().out


def test_a_level_of_a_scale(file, tmp_path):
    """At 0.001 the first evaluated round is high enough; 0.999 is never reached."""
    words = ["reproduce", "r.yaml", "--jobs", "1", "--rows", "FedAvg", "--scale", "low"]
    for level, row in (
        ("0.001", "1.0 | 1.0 | +0.0 | 0.5 | not comparable |"),
        ("0.999", "1.0 | - | - | 0.5 | not measured |"),
    ):
        file.write_text(FILE + RECIPE + SCALE.replace("0.001", level))
        assert main(words) == 0
        text = (tmp_path / "runs/c/low/reproduction.md").read_text()
        assert f"| generic/accuracy, rounds_to | {row}" in text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (FILE + RECIPE.partition("  quantity")[0] + SCALE, "rounds_to: there is no quantity"),
        (FILE + RECIPE + SCALE.replace("0.001", "50"), "rounds_to is 50; expected"),
    ],
)
def test_wrong_levels_of_scales_get_one_line(file, text, reason):
    file.write_text(text)
    with pytest.raises(FedltError, match=reason) as told:
        read_recipe(file)
    assert "reproduce.scales.low.rounds_to" in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("{rounds_to: 0.01}", "{rounds_to: 97}", "quantity.rounds_to is 97; expected"),
        ("{rounds_to: 0.01}", "{round_to: 0.9}", "quantity.round_to: unknown key"),
        ("  quantity: {rounds_to: 0.01}\n", "", "unknown 'rounds_to'"),
        ("unit: number", "unit: percent", "rounds are a number, not percent"),
    ],
)
def test_wrong_quantities_get_one_line(file, old, new, reason):
    file.write_text((FILE + RECIPE).replace(old, new))
    with pytest.raises(FedltError, match=reason) as told:
        read_recipe(file)
    assert "\n" not in str(told.value)
