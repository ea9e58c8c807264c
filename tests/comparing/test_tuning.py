"""``fedlt compare --tune``, and the lines above a table about values that were chosen or not."""

from __future__ import annotations

import json

import pytest

import fedlt
from fedlt.cli import main
from fedlt.comparing.comparison import read_comparison
from fedlt.comparing.sweep import Trial
from fedlt.comparing.tuning import best_trial, tuned
from fedlt.errors import FedltError

FILE = """
name: c
seeds: [3]
rounds: 1
data: {dataset: synthetic, options: {num_classes: 3, train_per_class: 8, test_per_class: 4}}
partition: {num_clients: 2}
model: {name: mlp, width: 4, norm: group}
engine: {name: serial}
compare:
  search: {local.lr: [0.01, 0.1]}
  rows:
    FedAvg: {}
    FedProx: {strategy: {name: fedprox, mu: 0.1}, search: {strategy.mu: [0.5]}}
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "c.yaml"
    path.write_text(FILE)
    return path


def told(capsys):
    output = capsys.readouterr()
    return output.out + output.err


def test_rows_run_with_the_values_of_their_best_trials(file, tmp_path, capsys):
    assert main(["compare", "c.yaml", "--tune", "--jobs", "1", "--no-report"]) == 0
    text, found = told(capsys), json.loads((tmp_path / "runs/c/tuned.json").read_text())
    assert found["FedProx"]["values"] == {"strategy.mu": 0.5}
    own = found["FedAvg"]
    assert (own["trials"], own["seed"], own["split"]) == (2, 3, "tune")
    scores = {}
    for line in (tmp_path / "runs/c/sweep/sweep.csv").read_text().splitlines()[1:]:
        if line.startswith("FedAvg"):
            _, _, score, values = line.split(",", 3)
            scores[json.loads(values.strip('"').replace('""', '"'))["local.lr"]] = float(score)
    assert own["score"] == max(scores.values())
    assert {values["local.lr"]: score for values, score in own["tried"]} == scores
    assert scores[own["values"]["local.lr"]] == max(scores.values())
    config = (tmp_path / "runs/c/fedavg/3/config.yaml").read_text()
    assert f"lr: {own['values']['local.lr']}" in config
    assert "split: final" in config
    line = f"tuned: FedAvg: lr={own['values']['local.lr']}, the best of 2 trials of local.lr"
    table = (tmp_path / "runs/c/last_k.md").read_text()
    assert line in text
    assert line in table
    assert "not tuned" not in table


def test_a_rate_that_nobody_searched_is_told(file, tmp_path, capsys):
    line = "not tuned: all methods have local.lr 0.1, which nobody searched"
    assert main(["compare", "c.yaml", "--jobs", "1"]) == 0
    assert line in told(capsys)
    assert line in (tmp_path / "runs/c/last_k.md").read_text()
    assert f"N{line[1:]}" in (tmp_path / "runs/c/report.html").read_text()
    sweep = tmp_path / "runs/c/sweep/sweep.csv"  # as of an earlier fedlt sweep
    sweep.parent.mkdir()
    sweep.write_text('method,trial,score,values\nFedAvg,0,0.5,"{""local.lr"": 0.1}"\n')
    assert main(["compare", "c.yaml", "--jobs", "1", "--no-report"]) == 0
    assert "not tuned" not in told(capsys)


def test_rows_with_the_shared_rate_are_named_beside_rows_with_their_own(file, tmp_path, capsys):
    """FedLoGe has a rate of its own; the two other rows share one that nobody searched."""
    row = "    FedAvg again: {rng_salt: 1}\n    FedLoGe: {strategy: fedloge, local: {lr: 0.5}}\n"
    file.write_text(FILE + row)
    line = "not tuned: FedAvg, FedProx, FedAvg again have local.lr 0.1, which nobody searched"
    assert main(["compare", "c.yaml", "--jobs", "1"]) == 0
    assert line in told(capsys)
    assert line in (tmp_path / "runs/c/last_k.md").read_text()
    assert f"N{line[1:]}" in (tmp_path / "runs/c/report.html").read_text()
    table = fedlt.compare("c.yaml", quiet=True)
    assert line in repr(table)
    assert f"<p>{line}" in table._repr_html_()
    assert main(["rescore", "runs/c"]) == 0
    assert line in told(capsys)
    words = ["--rows", "FedAvg,FedLoGe", "--jobs", "1", "--no-report"]
    assert main(["compare", "c.yaml", *words]) == 0
    assert "not tuned: FedAvg has local.lr 0.1, which" in told(capsys)
    assert main(["compare", "c.yaml", *words, "local.lr=0.2", "name=d"]) == 0
    assert "not tuned: all methods have local.lr 0.2, which" in told(capsys)


def test_a_table_of_rates_of_their_own_says_nothing(file, capsys):
    file.write_text(FILE.replace("{}", "{local: {lr: 0.1}}").replace("}, search: {strat",
                                 "}, local: {lr: 0.1}, search: {strat"))  # fmt: skip
    assert main(["compare", "c.yaml", "--jobs", "1", "--no-report"]) == 0
    assert "not tuned" not in told(capsys)


def test_given_strategies_are_searched_as_the_rows_of_the_file_are(file, tmp_path):
    words = ["--tune", "--strategies", "fedavg,ditto", "--jobs", "1", "--no-report"]
    assert main(["compare", "c.yaml", *words]) == 0
    found = json.loads((tmp_path / "runs/c/tuned.json").read_text())
    assert {label: one["searched"] for label, one in found.items()} == {
        "fedavg": ["local.lr"],
        "ditto": ["local.lr"],
    }


def test_rows_without_a_search_cannot_be_tuned(file, tmp_path, capsys):
    file.write_text(FILE.replace("  search: {local.lr: [0.01, 0.1]}\n", ""))
    assert main(["compare", "c.yaml", "--tune", "--strategies", "fedavg,ditto"]) == 2
    assert "row 'fedavg' has no search" in told(capsys)
    assert not (tmp_path / "runs").exists()


def test_trials_have_rounds_of_their_own(file, tmp_path, capsys):
    """Trials of 1 round, then runs of 2 rounds; rounds of the command line hold for both."""
    file.write_text(FILE.replace("rounds: 1", "rounds: 2") + "  trial_rounds: 1\n")
    words = ["--tune", "--rows", "FedProx", "--jobs", "1", "--no-report"]
    assert main(["compare", "c.yaml", *words]) == 0
    short = "the best of 1 trials of strategy.mu on data.split: tune, seed 3, 1 round each"
    assert short in told(capsys)
    assert rounds_of(tmp_path / "runs/c") == {"sweep": 1, "fedprox": 2}
    assert main(["compare", "c.yaml", *words, "rounds=3", "name=d"]) == 0
    assert " each" not in told(capsys)
    assert rounds_of(tmp_path / "runs/d") == {"sweep": 3, "fedprox": 3}


def rounds_of(folder):
    """Return the rounds of the runs, by the first folder below ``folder``."""
    found = {}
    for path in sorted(folder.rglob("result.json")):
        found[path.relative_to(folder).parts[0]] = json.loads(path.read_text())["rounds"]
    return found


@pytest.mark.parametrize("given", ["0", "2.5", "true", "many"])
def test_trial_rounds_that_are_no_number_get_one_line(file, tmp_path, capsys, given):
    file.write_text(f"{FILE}  trial_rounds: {given}\n")
    assert main(["compare", "c.yaml"]) == 2
    assert "compare.trial_rounds: expected a whole number from 1, got" in told(capsys)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--trials", "3"], "--trials: is for the search of --tune"),
        (["--tune", "--set", "local.lr=0.1,0.2"], "--tune: not with --set"),
    ],
)
def test_wrong_words_get_one_line(file, tmp_path, capsys, words, reason):
    assert main(["compare", "c.yaml", *words]) == 2
    assert reason in told(capsys)
    assert not (tmp_path / "runs").exists()


def test_the_first_of_equal_scores_and_no_score_at_all(file):
    comparison = read_comparison(file)
    first, second = (Trial(comparison.rows[0], (("local.lr", lr),), None) for lr in (0.1, 0.2))
    assert best_trial([(first, 0.5), (second, 0.5)]) == (first, 0.5)
    assert best_trial([(first, None), (second, 0.1)]) == (second, 0.1)
    with pytest.raises(FedltError, match="every trial of row 'FedAvg' has failed"):
        tuned(comparison, {"FedAvg": [(first, None)]})


def test_the_chosen_values_are_stronger_than_overrides(file):
    """As in the trials of the search; so what the table says is what was run."""
    comparison = read_comparison(file, ["local.lr=0.7"])
    trial = Trial(comparison.rows[0], (("local.lr", 0.2),), None)
    row = tuned(comparison, {"FedAvg": [(trial, 0.5)]}).rows[0]
    assert comparison.configs(row)[0].local.lr == 0.2
