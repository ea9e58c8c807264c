"""One comparison on two machines: folders that are copied together are read, not run again."""

from __future__ import annotations

import csv
import json
import shutil
import statistics
from pathlib import Path

import pytest

import fedlt.simulate
from fedlt.cli import main

FILE = """
name: divided
seeds: [1, 2]
rounds: 1
data: {dataset: digits, imbalance_factor: 20}
partition: {num_clients: 4}
model: mlp
engine: {name: serial}
compare: {rows: {FedAvg: {}, FedROD: {strategy: fedrod, local: {lr: 0.3}}}}
"""
SHARES = {  # what each machine is asked for
    "rows": (["--rows", "FedAvg"], ["--rows", "FedROD"]),
    "seeds": (["--seeds", "1"], ["--seeds", "2"]),
}


def compare(machine: Path, patch: pytest.MonkeyPatch, *options: str) -> None:
    machine.mkdir(exist_ok=True)
    (machine / "mine.yaml").write_text(FILE)
    patch.chdir(machine)
    assert main(["compare", "mine.yaml", "--jobs", "1", "--no-report", *options]) == 0


def trains(*_: object, **__: object) -> None:
    raise AssertionError("a run is trained that is there")


@pytest.mark.parametrize("by", [pytest.param("rows", marks=pytest.mark.slow), "seeds"])
def test_finished_runs_of_two_machines_are_one_table(by, tmp_path, monkeypatch):
    """The table's means are those of the four result files, whose bytes stay as they were."""
    alpha, beta = tmp_path / "alpha", tmp_path / "beta"
    for machine, share in zip((alpha, beta), SHARES[by], strict=True):
        compare(machine, monkeypatch, *share)
    shutil.copytree(beta / "runs", alpha / "runs", dirs_exist_ok=True)
    shutil.rmtree(beta)
    paths = sorted((alpha / "runs/divided").glob("*/*/result.json"))
    assert [p.parts[-3:-1] for p in paths] == [
        (row, seed) for row in ("fedavg", "fedrod") for seed in ("1", "2")
    ]
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}
    monkeypatch.setattr(fedlt.simulate, "run", trains)

    compare(alpha, monkeypatch)

    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in paths} == before
    with (alpha / "runs/divided/last_k.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert sorted((one["method"], one["seed"]) for one in table if one["seed"].isdigit()) == [
        (row, seed) for row in ("FedAvg", "FedROD") for seed in ("1", "2")
    ]
    for row in ("fedavg", "fedrod"):
        stored = [json.loads(before[p][1]) for p in paths if p.parts[-3] == row]
        wanted = statistics.fmean(one["last_k"]["generic/accuracy"] for one in stored)
        shown = [float(one["generic/accuracy"]) for one in table if one["method"].lower() == row]
        assert statistics.fmean(shown) == pytest.approx(wanted, abs=1e-12)


@pytest.mark.slow
def test_a_run_of_another_setting_is_refused_by_name(tmp_path, monkeypatch, capsys):
    alpha, beta = tmp_path / "alpha", tmp_path / "beta"
    compare(alpha, monkeypatch, "--rows", "FedAvg", "--seeds", "1")
    compare(beta, monkeypatch, "--rows", "FedROD", "--seeds", "1", "local.batch_size=16")
    shutil.copytree(beta / "runs", alpha / "runs", dirs_exist_ok=True)
    monkeypatch.chdir(alpha)
    capsys.readouterr()
    assert main(["compare", "mine.yaml", "--jobs", "1", "--no-report"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "fedrod/1" in line
    assert "local.batch_size" in line
