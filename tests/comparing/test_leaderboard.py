"""``fedlt leaderboard``: kept and whole runs, verdicts, ranks, own rows beside published ones."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from kept_runs import write_kept

from fedlt.check import TINY
from fedlt.cli import main
from fedlt.config.yaml12 import dump
from fedlt.runs.fingerprint import RESULTS_VERSION

# Differences with mean m and deviation 0.01: t = m sqrt(5) / 0.01 with 4 degrees of freedom.
WAVE = (0.01, -0.01, 0.01, -0.01, 0.0)
BASE = (0.50, 0.52, 0.51, 0.53, 0.50)


def figures(generic=0.0, personal=0.0):
    """Return five seeds above BASE by a mean in each view; 0.0: the figures of BASE themselves."""

    def above(mean):
        return [base + (mean + wave) * (mean != 0) for base, wave in zip(BASE, WAVE, strict=True)]

    return [(g, 0.1, p) for g, p in zip(above(generic), above(personal), strict=True)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two data sets. Row b-wins has t = 22, its corrected p is far below 5 %.

    Row c-near has t = 3.0, p between 2 % and 5 % by the table of t (2.776 and 3.747), which Holm's
    correction of at least two comparisons lifts above 5 %.
    """
    monkeypatch.chdir(tmp_path)
    rows = {"a-base": figures(), "b-wins": figures(0.1, -0.1), "c-near": figures(0.0134, 0.0134)}
    write_kept(tmp_path / "kept/one", rows, deal="one")
    write_kept(tmp_path / "kept/two", rows, deal="two")
    return tmp_path


def board(capsys, *words, code=0):
    capsys.readouterr()
    assert main(["leaderboard", *words]) == code
    captured = capsys.readouterr()
    return captured.out if code == 0 else captured.err


def read_csv(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_verdicts_stand_beside_the_figures_of_each_data_set(folder, capsys):
    text = board(capsys, "Fashion=kept/one", "kept/two", "--output", "out")
    lines = (folder / "out/leaderboard.md").read_text().split("\n")
    head = "| method | Fashion: generic | few | personal | verdict | two: generic | few |"
    assert lines[0].startswith(head)
    found = {line.split(" | ")[0]: line for line in lines[2:5]}
    assert found["| b-wins"].count("generic better, personal worse") == 2
    assert found["| c-near"].count("| not different |") == 2
    assert found["| a-base"].count("| reference |") == 2
    assert found["| a-base"].startswith("| a-base | 51.2 ± 1.6 | 10.0 ± 0.0 | 51.2 ± 1.6 |")
    words = "t test paired over 5 seeds, Holm's correction over 4 comparisons (rows x views)"
    assert f"Fashion: verdicts against a-base: {words}, level 5%" in text
    assert "Fashion: last_k of 4 rounds, split final, seeds 1, 2, 3, 4, 5" in text


def test_ranks_are_those_counted_by_hand(folder, capsys):
    """b-wins is first in all ten generic blocks, last in all personal ones.

    c-near is above a-base where 0.0134 + wave > 0: always. So a-base is third and second.
    """
    text = board(capsys, "kept/one", "kept/two", "--output", "out")
    found = {(r["view"], r["method"]): r for r in read_csv(folder / "out/ranks.csv")}
    by_hand = {
        "generic": {"b-wins": 1, "c-near": 2, "a-base": 3},
        "personal": {"c-near": 1, "a-base": 2, "b-wins": 3},
    }
    for view, means in by_hand.items():
        assert {m: float(r["mean_rank"]) for (v, m), r in found.items() if v == view} == means
    # q of three methods is 2.343: 2.343 sqrt(3 * 4 / (6 * 10)) = 1.048
    assert float(found["generic", "b-wins"]["critical_difference"]) == pytest.approx(
        1.048, abs=1e-3
    )
    assert "mean rank, generic: 3 rows in 10 blocks (data set x seed), 1 is best" in text
    assert "a description, no verdict" in text
    picture = (folder / "out/ranks.svg").read_text()
    assert picture.startswith("<?xml")


def test_means_of_personal_parts_are_marked_in_the_generic_ranks(folder, capsys):
    """FedRep has no generic model of its own; its personal models are its own."""
    write_kept(folder / "mine", {"fedrep": figures(0.2, 0.2)}, deal="one", generic_model="average")
    board(capsys, "kept/one", "mine", "--output", "out")
    written = (folder / "out/leaderboard.md").read_text()
    assert "| fedrep | ~1.00 | 1.00 |" in written
    labels = (folder / "out/ranks.svg").read_text()
    assert labels.count("<!-- ~fedrep -->") == labels.count("<!-- fedrep -->") == 1


def test_the_files_have_unrounded_figures_and_the_table_of_each_data_set(folder, capsys):
    board(capsys, "kept/one", "--output", "out", "--against", "c-near")
    (row,) = [
        r for r in read_csv(folder / "out/leaderboard.csv")
        if (r["method"], r["column"]) == ("b-wins", "generic")
    ]  # fmt: skip
    assert float(row["mean"]) == pytest.approx(0.512 + 0.1)
    assert float(row["difference"]) == pytest.approx(0.1 - 0.0134)
    assert row["verdict"] == "better"
    table = (folder / "out/one/last_k.md").read_text()
    assert "| a-base | 51.2 ± 1.6 |" in table
    assert "Against c-near, paired over 5 seeds" in table
    assert len(read_csv(folder / "out/one/last_k.csv")) == 15


def test_json_has_the_same_numbers(folder, capsys):
    document = json.loads(board(capsys, "kept/one", "--json"))
    assert document["against"] == "a-base"
    means = {(r["method"], r["column"]): r["mean"] for r in document["rows"]}
    assert means["a-base", "generic"] == pytest.approx(0.512)
    assert [one["view"] for one in document["rankings"]] == ["generic", "personal"]


def test_labels_order_and_budgets_come_from_the_files_beside_the_runs(folder, capsys):
    """Without them a row is called as its folder."""
    searched = {
        "values": {"local.lr": 0.5}, "score": 0.5, "searched": ["local.lr"], "trials": 3,
        "failed": 0, "seed": 1, "split": "tune", "rounds": 2,
    }  # fmt: skip
    beside = folder / "kept/one"
    (beside / "rates.json").write_text('{"C near": "own", "A base": "own", "B wins": "own"}')
    tried = [[{"local.lr": 0.1}, 0.4], [{"local.lr": 0.5}, 0.5], [{"local.lr": 2.5}, None]]
    known = {"C near": searched, "A base": searched | {"tried": tried}}
    (beside / "tuned.json").write_text(json.dumps(known))
    text = board(capsys, "kept/one", "--output", "out")
    written = (folder / "out/leaderboard.md").read_text()
    assert "| C near | **lr=0.5: 50.0** |" in written  # a file of before the key "tried"
    assert "| A base | lr=0.1: 40.0, **lr=0.5: 50.0**, lr=2.5: failed |" in written
    assert "| B wins | - |" in written
    assert "verdicts against C near" in text
    budget = "the best of 3 trials of local.lr on data.split: tune, seed 1, 2 rounds each"
    assert f"one: every other row: {budget}" in text
    assert "one: B wins: not searched" in text
    assert "one: every row: not searched" not in text


def test_own_rows_stand_beside_published_ones_of_the_same_partitions(folder, capsys):
    write_kept(folder / "mine", {"my-method": figures(0.2, 0.2)}, deal="one")
    document = json.loads(board(capsys, "kept/one", "mine", "--json"))
    assert {row["data_set"] for row in document["rows"]} == {"one"}
    assert next(iter(document["rankings"][0]["means"])) == "my-method"
    write_kept(folder / "other", {"my-method": figures(0.2, 0.2)}, deal="else")
    document = json.loads(board(capsys, "kept/one", "other", "--json"))
    assert {row["data_set"] for row in document["rows"]} == {"one", "other"}


def test_three_seeds_give_no_verdict(folder, capsys):
    rows = {"a": figures()[:3], "b": figures(0.1, 0.1)[:3]}
    write_kept(folder / "three", rows)
    text = board(capsys, "three")
    assert "verdicts against a: undecided, a verdict needs 5 seeds, here 3" in text
    assert " better" not in text


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"rounds": 8}, "'mine' and 'a-base' have 8 and 4 rounds: not comparable"),
        ({"split": "tune"}, "differ in data.split: not comparable"),
        ({"results_version": RESULTS_VERSION - 1}, "differ in results version: not comparable"),
    ],
)
def test_rows_that_cannot_be_compared_are_refused(folder, capsys, more, reason):
    write_kept(folder / "mine", {"mine": figures()}, deal="one", **more)
    error = board(capsys, "kept/one", "mine", code=2)
    assert reason in error
    assert error.count("\n") == 1


def test_an_earlier_results_version_is_told(folder, capsys):
    older = RESULTS_VERSION - 1
    write_kept(folder / "old", {"a": figures()}, results_version=older)
    words = f"made by results version {older} of fedlt, this is {RESULTS_VERSION}"
    assert f"old: {words}: numbers have changed" in board(capsys, "old")


def test_other_mistakes_get_one_line(folder, capsys):
    write_kept(folder / "twice", {"a-base": figures()}, deal="one")
    (folder / "empty").mkdir()
    wrong = {
        ("kept/one", "twice"): "row 'a-base' is twice on one data set, in kept/one and twice",
        ("kept/one", "kept/none"): "kept/none is not a folder",
        ("empty",): "empty holds no runs of a comparison, as <row>/<seed>",
        ("x=kept/one", "x=kept/two"): "two data sets are called 'x'; give HEADING=FOLDER",
        ("kept/one", "--against", "d"): "against: no row 'd'",
        ("kept/one", "--which", "best_on_test"): "--which: unknown 'best_on_test'",
        ("kept/one", "--which", "selected"): "the runs have no evaluate.selected_round",
        ("kept/one", "--keep", "kept"): "kept/one is the folder of the runs; give another",
    }
    for words, reason in wrong.items():
        error = board(capsys, *words, code=2)
        assert reason in error
        assert error.count("\n") == 1


@pytest.mark.parametrize("name", ["result.json", "rounds.jsonl"])
def test_a_kept_run_that_was_changed_is_refused(folder, capsys, name):
    path = Path("kept/one/a-base/2", name)
    path.write_text(path.read_text().replace("0.52", "0.92", 1))
    error = board(capsys, "kept/one", code=2)
    assert str(path) in error
    assert "does not match its checksum" in error
    path.unlink()
    assert board(capsys, "kept/one", code=2).count("\n") == 1


def test_other_commands_say_that_a_kept_run_lacks_the_rest(folder, capsys):
    words = "has a run's result and rounds only, which fedlt leaderboard shows"
    for command in (["rescore"], ["report"]):
        assert main([*command, "kept/one"]) == 2
        assert words in capsys.readouterr().err
    assert main(["status", "kept"]) == 0
    assert "30 kept" in capsys.readouterr().out


FILE = TINY | {
    "name": "c", "rounds": 2, "output": "runs", "seeds": [1, 2],
    "compare": {"search": {"local.lr": [0.1]}, "trial_rounds": 1,
                "rows": {"Z first": {}, "A second": {"strategy": "fedrep"}}},
}  # fmt: skip


@pytest.mark.slow
def test_what_is_kept_gives_the_leaderboard_of_the_whole_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(dump(FILE))
    assert main(["compare", "c.yaml", "--tune", "--jobs", "1", "--no-report"]) == 0
    whole = board(capsys, "runs/c", "--keep", "kept", "--output", "out")
    files = {str(p.relative_to(tmp_path / "kept")) for p in (tmp_path / "kept").rglob("*.*")}
    runs = {f"c/{row}/{seed}" for row in ("z-first", "a-second") for seed in (1, 2)}
    beside = {"c/rates.json", "c/tuned.json"}
    assert files == {f"{r}/{n}" for r in runs for n in ("result.json", "rounds.jsonl")} | beside
    kept = board(capsys, "kept/c", "--output", "again")
    assert kept.split("\nagain/")[0] == whole.split("\nout/")[0]
    for name in ("leaderboard.md", "leaderboard.csv", "ranks.csv", "ranks.svg", "c/last_k.csv"):
        assert (tmp_path / "again" / name).read_text() == (tmp_path / "out" / name).read_text()
    assert "verdicts against Z first" in kept
    board(capsys, "runs/c", "--keep", "kept")  # the same files again
    words = ["--strategies", "fedprox", "--jobs", "1", "--no-report", "name=mine"]
    assert main(["compare", "c.yaml", *words]) == 0
    beside = board(capsys, "kept/c", "runs/mine")  # a whole run beside kept ones
    assert "c: verdicts against Z first" in beside
    assert "c: fedprox: not searched" in beside
    target = tmp_path / "kept/c/z-first/1/rounds.jsonl"
    target.write_text("")
    assert f"{target.relative_to(tmp_path)} is there already" in board(
        capsys, "runs/c", "--keep", "kept", code=2
    )
    (tmp_path / "runs/c/a-second/2/result.json").unlink()
    assert "is not finished; the same fedlt compare goes on" in board(capsys, "runs/c", code=2)
