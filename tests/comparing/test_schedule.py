"""Runs of a comparison: several processes, interrupted ones, failures; and the two commands."""

from __future__ import annotations

import csv
import io
import os
import random
import shutil
import signal
import time

import pytest
from rich.console import Console

from fedlt.cli import main
from fedlt.comparing.display import RunsProgress
from fedlt.comparing.processes import run_in_processes
from fedlt.comparing.schedule import PlannedRun, run_planned
from fedlt.comparing.sweep import score
from fedlt.federation.ledger import Ledger
from fedlt.runs.directory import RunDirectory

FILE = """
name: tiny
seeds: [1, 2]
rounds: 2
data: {dataset: synthetic, imbalance_factor: 5, options: {num_classes: 4, train_per_class: 40}}
partition: {num_clients: 4}
model: {width: 4}
local: {batch_size: 8}
engine: {name: serial}
compare:
  search: {local.lr: [0.01, 0.1]}
  rows: {FedAvg: {}, FedLoGe: {strategy: fedloge}}
"""


def act(task, tell):
    """Do what a task says, in a process of its own."""
    tell(f"begins {task}")
    if task == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(task)
    return task


class Told(RunsProgress):
    """Keeps what is said."""

    def __init__(self):
        super().__init__(Console(file=io.StringIO(), width=200))
        self.seen = []

    @property
    def lines(self):
        return self._console.file.getvalue().splitlines()

    def advance(self, position, done):
        self.seen.append((position, done))
        super().advance(position, done)


@pytest.mark.slow
def test_a_process_that_dies_costs_its_task_only():
    tasks, heard = [0.0, "die", 0.1, 0.2], []
    found = dict(
        run_in_processes(
            act,
            tasks,
            processes=2,
            lost=lambda task, code: (task, code),
            hear=lambda *said: heard.append(said),
        )
    )
    assert {(0, "begins 0.0"), (2, "begins 0.1"), (3, "begins 0.2")} <= set(heard)
    assert found == {0: 0.0, 1: ("die", -signal.SIGKILL), 2: 0.1, 3: 0.2}


@pytest.mark.slow
def test_results_do_not_depend_on_how_many_go_at_once(lab):
    """Three runs in this process, and the same three in two others."""
    told = Told()
    results = []
    for jobs in (1, 2):
        planned = [PlannedRun("a", lab.fresh(seed=seed)) for seed in (1, 2, 3)]
        outcomes = run_planned(planned, jobs=jobs, progress=told)
        assert [outcome.planned.config.seed for outcome in outcomes] == [1, 2, 3]
        results.append([outcome.result["final"] for outcome in outcomes])
    for one, other in zip(*results, strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}
    assert "3 of 3 runs, 0:00 left" in told.lines[-1]


def test_a_run_that_fails_is_named_and_the_others_go_on(lab):
    good, bad = lab.fresh(), lab.fresh(local={"lr": 1e30, "batch_size": 8})
    outcomes = run_planned(
        [PlannedRun("bad", bad), PlannedRun("good", good)], jobs=1, progress=Told()
    )
    assert outcomes[0].result is None
    assert "not finite" in outcomes[0].reason
    assert outcomes[1].result["status"] == "finished"


def test_what_was_stopped_goes_on_with_the_same_bits(lab):
    """The second call resumes one run and reads the other."""
    stopped = lab.stopped(2)
    done = lab.fresh()
    planned = [PlannedRun("a", stopped), PlannedRun("b", done)]
    run_planned(planned[1:], jobs=1, progress=Told())
    told = Told()
    first, second = run_planned(planned, jobs=1, progress=told)
    assert told.lines[0] == "1 of 2 runs are finished already"
    assert {**first.result["final"], "seconds": 0} == {**second.result["final"], "seconds": 0}


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(FILE, encoding="utf-8")
    return tmp_path


def test_compare_prints_both_views_and_writes_the_table(file, capsys):
    assert main(["compare", "c.yaml", "--jobs", "1"]) == 0
    shown = capsys.readouterr().out
    assert "tiny, last_k, split final, seeds 1, 2: mean ± 95 % confidence interval" in shown
    assert "Against FedAvg, paired over 2 seeds: undecided, a verdict needs 5 seeds" in shown
    assert "% of clients higher, " in shown
    assert (file / "runs/tiny/last_k.md").read_text().count("\n| Fed") == 2
    assert (file / "runs/tiny/last_k.csv").read_text().count("\n") == 5
    assert "FedLoGe & " in (file / "runs/tiny/last_k.tex").read_text()
    page = file / "runs/tiny/report.html"
    assert "Which method serves everybody best" in page.read_text()
    page.unlink()
    before = (file / "runs/tiny/fedavg/1/result.json").stat().st_mtime_ns
    again = ["--which", "all", "--against", "FedLoGe", "--no-report"]
    assert main(["compare", "c.yaml", "--jobs", "1", *again]) == 0
    assert not page.exists()
    shown, err = capsys.readouterr()
    assert "4 of 4 runs are finished already" in err
    assert "never for a verdict" in shown
    assert (file / "runs/tiny/fedavg/1/result.json").stat().st_mtime_ns == before


@pytest.mark.slow
def test_a_comparison_stopped_three_times_at_random_has_the_same_table(file, capsys, monkeypatch):
    """Ctrl-C in the middle of three rounds, wherever they fall; only seconds and memory differ."""
    command = ["compare", "c.yaml", "--jobs", "1"]

    def table():
        rows = list(csv.DictReader((file / "runs/tiny/last_k.csv").read_text().splitlines()))
        return [{**row, "seconds": 0, "peak_memory": 0} for row in rows]

    assert main(command) == 0
    wanted = table()
    shutil.rmtree(file / "runs")
    note, left = Ledger.note, []

    def interrupted(self, outcome):
        left.append(outcome.state.round)
        if len(left) in stops:
            raise KeyboardInterrupt
        note(self, outcome)

    monkeypatch.setattr(Ledger, "note", interrupted)
    stops = sorted(random.Random(6).sample(range(1, 9), 3))
    codes = [main(command) for _ in range(4)]
    assert codes == [130, 130, 130, 0], stops
    assert "interrupted; the same command goes on" in capsys.readouterr().err
    assert table() == wanted, stops


@pytest.mark.slow
def test_a_grid_has_a_table_for_every_value_and_reuses_finished_runs(file, capsys):
    """The file's own imbalance factor is 5: its runs are read, wherever they lie; those of 2 run"""
    plain = ["compare", "c.yaml", "--jobs", "1", "--seeds", "1"]
    assert main(plain) == 0
    grid = [*plain, "--set", "data.imbalance_factor=5,2"]
    assert main(grid) == 0
    shown, err = capsys.readouterr()
    assert "2 of 4 runs are finished already" in err
    assert shown.index("data.imbalance_factor=5\n") < shown.index("data.imbalance_factor=2\n")
    folder = file / "runs/tiny"
    assert not (folder / "data.imbalance_factor=5/fedavg").exists()
    stored = (folder / "data.imbalance_factor=2/fedavg/1/config.yaml").read_text()
    assert "imbalance_factor: 2" in stored
    assert (folder / "data.imbalance_factor=2/report.html").is_file()
    text = (folder / "last_k.md").read_text()
    assert text.count("| method |") == 2
    assert "* data.imbalance_factor=2, generic: FedLoGe undecided" in text
    assert main(grid) == 0
    assert "4 of 4 runs are finished already" in capsys.readouterr().err


@pytest.mark.slow
def test_a_method_beside_itself_has_the_same_partitions_and_other_draws(file, capsys):
    rows = "  rows: {A: {}, A again: {rng_salt: 1}}"
    text = (file / "c.yaml").read_text().replace("[1, 2]", "[1, 2, 3, 4, 5]")
    (file / "aa.yaml").write_text(text[: text.index("  rows:")] + rows, encoding="utf-8")
    assert main(["compare", "aa.yaml", "--jobs", "1"]) == 0
    assert "Holm's correction over 2 comparisons" in capsys.readouterr().out
    found = [
        [RunDirectory(file / f"runs/tiny/{row}/{seed}").result() for seed in range(1, 6)]
        for row in ("a", "a-again")
    ]
    for one, other in zip(*found, strict=True):
        assert one["partition_hash"] == other["partition_hash"]
        assert one["last_k"]["generic/nll"] != other["last_k"]["generic/nll"]


def test_sweep_tries_every_value_on_tune_and_marks_the_best(file, capsys):
    assert main(["sweep", "c.yaml", "--rows", "FedAvg", "--jobs", "1"]) == 0
    shown = capsys.readouterr().out
    assert "lr=0.01: " in shown
    assert shown.count("**") == 2
    assert main(["list", "strategies"]) == 0
    stored = (file / "runs/tiny/sweep/local.lr=0.01/fedavg/1/config.yaml").read_text()
    assert "split: tune" in stored


def test_the_score_is_the_mean_of_the_views_that_a_method_has():
    assert score({"last_k": {"generic/accuracy": 0.5, "personal/accuracy": 0.7}}) == 0.6
    assert score({"last_k": {"generic/accuracy": None, "personal/accuracy": 0.7}}) == 0.7


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["compare", "c.yaml", "--which", "finl"], "--which: unknown 'finl'; nearest: 'final'"),
        (["compare", "c.yaml", "--strategies", "fedavgg"], "unknown strategy 'fedavgg'"),
        (["compare", "c.yaml", "--seeds", "1,x"], "seeds"),
        (["compare", "c.yaml", "--against", "FedAvgg"], "against: no row 'FedAvgg'; nearest"),
        (["compare", "c.yaml", "--which", "selected"], "set evaluate.selected_round"),
        (["compare", "c.yaml", "--set", "local.lr"], "expected key=a,b,c"),
        (["compare", "c.yaml", "--set", "local.lr=0.1,0.1"], "a value is given twice"),
        (["compare", "c.yaml", "--set", "seeds=1,2"], "use --seeds"),
        (["compare", "c.yaml", "local.lr=1.0", "--set", "local.lr=1,2"], "is given twice"),
        (["compare", "c.yaml", "--set", "local.lrr=1,2"], "unknown key 'local.lrr'"),
        (["sweep", "c.yaml", "--rows", "X"], "no row 'X'"),
        (["compare", "c.yaml", "--rows", ""], "--rows: '' names nothing"),
        (["compare", "c.yaml", "--strategies", ","], "--strategies: ',' names nothing"),
        (["compare", "c.yaml", "--seeds", ""], "--seeds: '' names nothing"),
        (["compare", "c.yaml", "--seeds", "1", "seeds=[2]"], "--seeds 1 says another; give one"),
        (["compare", "c.yaml", "--set", "strategy.name=fedavg"], "use --strategies"),
        (["compare", "b.yaml"], "'B' and 'A' differ in data.imbalance_factor: not comparable"),
    ],
)
def test_wrong_arguments_get_one_line_and_write_nothing(file, capsys, arguments, words):
    text = (file / "c.yaml").read_text()
    rows = "  rows: {A: {}, B: {data: {imbalance_factor: 2}}}"
    (file / "b.yaml").write_text(text[: text.index("  rows:")] + rows, encoding="utf-8")
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert not (file / "runs").exists()
