"""Cost of planned runs: totals by hand, one trial a row, and nothing written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fedlt.check import TINY
from fedlt.cli import main
from fedlt.comparing import estimate
from fedlt.comparing.estimate import RunCost, TotalCost, cost_sheet, estimate_runs, total_text
from fedlt.comparing.schedule import PlannedRun
from fedlt.config.yaml12 import dump
from fedlt.simulate import run

COST = RunCost("A", 3, 3.0, "serial", 10, seconds=60.0, memory=2**30, disk=2**20)
LONG = replace(COST, label="B", runs=1, left=1.0, seconds=200.0, memory=2**31)


def test_totals_by_hand():
    """3 runs of 60 s and one of 200 s: 380 s of work; two at once need at least 190, and 200."""
    assert estimate._total([COST, LONG], 1) == TotalCost(4, 0, 1, 380.0, 2**31, 4 * 2**20)
    assert estimate._total([COST, LONG], 2) == TotalCost(4, 0, 2, 200.0, 3 * 2**30, 4 * 2**20)
    half = replace(COST, left=1.5)  # one is finished, one has half of its rounds
    assert estimate._total([half], 1) == TotalCost(3, 1, 1, 90.0, 2**30, round(1.5 * 2**20))
    nothing = replace(COST, left=0.0, seconds=None, memory=None, disk=None)
    assert estimate._total([nothing], 2) == TotalCost(3, 3, 2, 0.0, 0, 0)
    unknown = replace(COST, seconds=None, memory=None)
    assert estimate._total([unknown, LONG], 1).seconds is None


def test_words():
    total = TotalCost(4, 1, 2, 3700.0, 3 * 2**30, 2**20)
    assert total_text(total) == (
        "4 runs, 1 of them finished: 1:01:40, 2 at once; memory 3.0 GiB; disk 1.0 MiB"
    )
    assert cost_sheet([COST]).rows == [
        ["A", "3 of 3", "serial", "10", "1:00", "1.0 GiB", "1.0 MiB"]
    ]
    unknown = replace(total, seconds=None, memory=None)
    assert "unknown, 2 at once; memory unknown" in total_text(unknown)


def test_one_trial_a_row_nothing_written_and_what_is_left(lab, monkeypatch):
    """The first seed of a row is tried, for all of them; finished and begun runs cost less."""
    tried = []
    real = estimate.prepare_parties

    def prepare(config, *method, progress):
        tried.append((config.strategy.name, config.seed))
        return real(config, *method, progress=progress)

    monkeypatch.setattr(estimate, "prepare_parties", prepare)
    configs = lab.config(seeds=[1, 2]).runs()
    runs = [PlannedRun("A", config) for config in configs]
    runs += [PlannedRun("B", lab.config(strategy="fedrep", name="b"))]
    costs, total = estimate_runs(runs, jobs=1)
    assert tried == [("fedavg", 1), ("fedrep", 1)]
    assert [(cost.label, cost.runs, cost.left) for cost in costs] == [("A", 2, 2), ("B", 1, 1)]
    assert all(cost.seconds > 0 and cost.memory > 0 and cost.engine == "serial" for cost in costs)
    assert total.seconds == pytest.approx(2 * costs[0].seconds + costs[1].seconds)
    assert not Path(configs[0].output).exists()
    run(configs[0])
    (first, _), after = estimate_runs(runs[:2] + runs[2:], jobs=1)
    assert (first.left, after.finished) == (1.0, 1)


def test_disk_of_a_run(lab):
    """A factor of three: the size of what a run has written, from a trial."""
    (cost,), _ = estimate_runs([PlannedRun("A", lab.config(strategy="fedrep", name="x"))])
    outcome = lab.run(strategy="fedrep", name="x")
    real = sum(one.stat().st_size for one in outcome.directory.path.rglob("*") if one.is_file())
    assert real / 3 < cost.disk < 3 * real


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["a.yaml", "--rows", "A"], "--rows: a.yaml is no comparison"),
        (["a.yaml", "--scale", "cpu"], "--scale: a.yaml is no recipe"),
        (["a.yaml", "--settings", "a"], "--settings: a.yaml is no recipe"),
        (["fedloge", "--strategies", "fedavg"], "fedloge.yaml is a recipe"),
        (["fedloge", "--seeds", "1"], "--seeds: "),
        (["fedloge", "--scale", "cpuu"], "nearest: 'cpu'"),
        (["a.yaml", "strategy=fedavgg"], "nearest: 'fedavg'"),
        (["quickstat"], "nearest: 'quickstart'"),
    ],
)
def test_mistakes_are_one_line(arguments, line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text(dump(TINY))
    assert main(["estimate", "--quiet", *arguments]) == 2
    captured = capsys.readouterr()
    assert line in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
