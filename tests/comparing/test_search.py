"""Searches: what is proposed, that it is proposed again, and that it finds a known optimum."""

from __future__ import annotations

import csv
import math

import pytest

from fedlt.cli import main
from fedlt.comparing.search import (
    BATCH,
    Grid,
    Optuna,
    Range,
    described,
    parse_choices,
    tried,
)
from fedlt.errors import FedltError

FILE = """
name: tiny
rounds: 1
data: {dataset: synthetic, imbalance_factor: 5, options: {num_classes: 4, train_per_class: 40}}
partition: {num_clients: 4}
model: {width: 4}
local: {batch_size: 8}
engine: {name: serial}
"""


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("log:0.003..0.3", Range(0.003, 0.3, log=True)),
        ("-1..1.5", Range(-1.0, 1.5)),
        ("1..10", Range(1, 10, whole=True)),
        ("log: 1e-3 .. 1", Range(1e-3, 1.0, log=True)),
        (".1...5", Range(0.1, 0.5)),
        ([1, 2], [1, 2]),
        ("0.1", None),
        ("a..b", None),
        ([], None),
        (0.1, None),
    ],
)
def test_choices_are_lists_and_ranges(text, wanted):
    assert parse_choices(text) == wanted


@pytest.mark.parametrize("text", ["1..1", "2..1", "log:0..1", "0..inf"])
def test_ranges_without_numbers_are_refused(text):
    with pytest.raises(FedltError, match="expected a range from low to high"):
        parse_choices(text)


def test_a_grid_is_every_combination_once():
    grid = Grid({"a": [1, 2], "b": ["x", "y"]})
    assert [dict(values) for values in grid.ask()] == [
        {"a": 1, "b": "x"}, {"a": 1, "b": "y"}, {"a": 2, "b": "x"}, {"a": 2, "b": "y"},
    ]  # fmt: skip
    assert grid.ask() == []
    with pytest.raises(FedltError, match="a has a range; give --trials N"):
        Grid({"a": Range(0, 1)})


SPACE = {"lr": Range(0.001, 1.0, log=True), "epochs": Range(1, 9, whole=True), "kind": ["a", "b"]}


def played(trials, seed=1, fails=()):
    """Return what is proposed for a score that is highest at lr 0.03, epochs 6, kind b."""
    search, found = Optuna(SPACE, trials=trials, seed=seed), []
    while asked := search.ask():
        scores = []
        for values in map(dict, asked):
            away = abs(math.log10(values["lr"] / 0.03)) + abs(values["epochs"] - 6) / 4
            good = 1 - away - 0.5 * (values["kind"] == "a")
            scores.append(None if len(found) + len(scores) in fails else good)
        found += [(dict(v), s) for v, s in zip(asked, scores, strict=True)]
        search.tell(scores)
    return found


def test_proposals_lie_in_the_space_and_are_short_numbers():
    for values, _ in played(2 * BATCH + 1):
        assert 0.001 <= values["lr"] <= 1
        assert values["lr"] == float(f"{values['lr']:.3g}")
        assert values["epochs"] in range(1, 10)
        assert values["kind"] in "ab"


def test_the_same_seed_proposes_the_same_and_more_trials_only_add():
    first = played(12, fails={3})
    assert len(first) == 12
    assert played(12, fails={3}) == first
    assert played(16, fails={3})[:12] == first
    assert played(12, seed=2) != first


def test_later_proposals_are_better_than_the_first_random_ones():
    """Means of 10 random trials and of the last 10 of 40, five seeds; seen gains: 0.5 to 0.9."""
    for seed in range(5):
        scores = [score for _, score in played(40, seed)]
        assert sum(scores[-10:]) / 10 > sum(scores[:10]) / 10 + 0.2


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "e.yaml").write_text(FILE, encoding="utf-8")
    return tmp_path


def test_a_search_of_an_experiment_file_goes_on_where_it_was(file, capsys):
    """Also with another number of processes: what is proposed does not depend on it."""
    space = ["--search", "local.lr=log:0.003..0.3", "--search", "local.epochs=1,2"]
    command = ["sweep", "e.yaml", *space, "--jobs", "1", "--trials"]
    assert main([*command, "2"]) == 0
    few = (file / "runs/tiny/sweep/sweep.csv").read_text()
    assert main([*command, "5"]) == 0
    assert "2 of 4 runs are finished already" in capsys.readouterr().err
    text = (file / "runs/tiny/sweep/sweep.csv").read_text()
    assert text.startswith(few)
    assert main([*command, "5"]) == 0
    assert (file / "runs/tiny/sweep/sweep.csv").read_text() == text
    rows = list(csv.DictReader(text.splitlines()))
    assert [row["method"] for row in rows] == ["fedavg"] * 5
    assert "**" in (file / "runs/tiny/sweep/sweep.md").read_text()
    configs = list((file / "runs/tiny/sweep").glob("*/fedavg/1/config.yaml"))
    assert len(configs) == 5
    assert all("split: tune" in path.read_text() for path in configs)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--search", "local.lr=log:0.1..1"], "local.lr has a range; give --trials N"),
        (["--search", "local.lr=log:0..1"], "expected a range from low to high, both above 0"),
        (["--search", "local.lr"], "expected key=a,b,c"),
        (["--search", "data.imbalance_factor=1,2"], "is no hyperparameter of a method"),
        (["--search", "local.lrr=1,2"], "unknown key 'local.lrr'"),
        (["--search", "local.lr=1,2", "--search", "local.lr=3,4"], "local.lr is given twice"),
        (["data.split=final", "--search", "local.lr=1,2"], "never on final"),
        (["--trials", "3"], "has no section 'compare'"),
        (["--trials", "0", "--search", "local.lr=1,2"], "--trials"),
    ],
)
def test_wrong_searches_get_one_line_and_write_nothing(file, capsys, more, words):
    assert main(["sweep", "e.yaml", *more]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert not (file / "runs").exists()


def test_trials_are_told_by_the_last_words_of_their_keys():
    section = ("strategy", {"name": "pfedme", "lam": 2.0, "outer_lr": 0.5})
    assert described((("local.lr", 0.1), section)) == "lr=0.1 strategy=pfedme lam=2.0 outer_lr=0.5"
    assert described((("strategy", {"name": "pfedme"}),)) == "strategy=pfedme"


def test_the_first_of_the_best_trials_is_bold():
    trials = [((("lr", value),), score) for value, score in ((1, 0.5), (2, 0.75), (3, 0.75))]
    assert tried([*trials, ((("lr", 4),), None)]) == (
        "lr=1: 50.0, **lr=2: 75.0**, lr=3: 75.0, lr=4: failed"
    )
    assert tried([((("lr", 1),), None)]) == "lr=1: failed"
