"""``fedlt realign``: tables, files, and one line for every mistake, with nothing written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedlt.cli import main
from fedlt.runs.directory import RunDirectory
from fedlt.simulate import run


@pytest.fixture(scope="module")
def runs(lab_factory):
    """Two seeds on the validation split, one on the test set."""
    lab = lab_factory("realign")
    made = {}
    for split, seeds in (("tune", [1, 2]), ("final", [1])):
        config = lab.config(name=split, seeds=seeds, data={"split": split})
        for one in config.runs():
            run(one)
        made[split] = RunDirectory.of(config.runs()[0]).path.parent
    return made


@pytest.fixture(autouse=True)
def _wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")


def everything(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


def outcomes(folder: Path) -> dict[str, dict]:
    return {path.name: json.loads(path.read_text()) for path in folder.glob("*/realign/*.json")}


def test_a_sweep_over_two_seeds(runs, capsys):
    folder = runs["tune"]
    assert main(["realign", str(folder), "--method", "tau_norm", "--sweep", "tau=0,0.5,1"]) == 0
    out = capsys.readouterr().out
    assert "tau_norm on fedavg + cross_entropy, seed 1, 2, round 3, split tune" in out
    rows = [line for line in out.splitlines() if line.startswith(("before", "after"))]
    assert [row.split("  ")[0] for row in rows[:4]] == [
        "before", "after, tau=0", "after, tau=0.5", "after, tau=1",
    ]  # fmt: skip
    assert len(rows) == 8
    assert rows[0].split()[1:] == rows[1].split()[2:]  # tau=0 is the run
    assert "±" in rows[0]
    assert "no data, no rounds" in out
    assert "best on the validation images: generic tau=" in out
    assert out.splitlines()[-1] == f"{folder}/2/realign/tau_norm-tau=1.json"
    for number in ("1", "2"):
        written = sorted(path.name for path in (folder / number / "realign").iterdir())
        assert written == [f"tau_norm-tau={tau}.json" for tau in ("0.5", "0", "1")]


def test_what_is_written(runs, capsys):
    command = ["realign", str(runs["final"] / "1"), "--method", "crt", "--data", "federated"]
    assert main([*command, "--rounds", "2", "--epochs", "1"]) == 0
    assert "2 rounds, " in capsys.readouterr().out
    name = "crt-federated-rounds=2,epochs=1,lr=0.1,batch_size=32.json"
    done = outcomes(runs["final"])[name]
    assert done["constants"] == {"epochs": 1, "lr": 0.1, "batch_size": 32}
    assert (done["data"], done["oracle"], done["rounds"], done["split"]) == (
        "federated", False, 2, "final",
    )  # fmt: skip
    assert done["bytes_up"] > 0
    result = json.loads((runs["final"] / "1" / "result.json").read_text())
    assert done["before"]["generic/accuracy"] == result["final"]["generic/accuracy"]


def test_pooled_data_are_marked_as_an_oracle(runs, capsys):
    command = ["realign", str(runs["final"]), "--method", "ccvr", "--data", "pooled"]
    assert main([*command, "--per-class", "20", "--allocation", "proportional"]) == 0
    out = capsys.readouterr().out
    assert "after (oracle)" in out
    assert "an oracle, not a federated method" in out
    name = (
        "ccvr-pooled-epochs=100,lr=0.01,batch_size=32,momentum=0.9,per_class=20,"
        "allocation=proportional,covariance=full.json"
    )
    assert outcomes(runs["final"])[name]["oracle"] is True


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--method", "tau"], ["--method: unknown 'tau'", "nearest: 'tau_norm'"]),
        (["--method", "tau_norm", "--scale", "1"], ["--scale is no option of tau_norm"]),
        (["--method", "crt"], ["--data is missing", "pooled (an oracle) or federated"]),
        (["--method", "crt", "--data", "poold"], ["--data is 'poold'"]),
        (["--method", "gla_fr", "--data", "pooled"], ["gla_fr needs no data"]),
        (["--method", "gla_fr", "--scale", "0"], ["gla_fr: scale is 0.0; expected more than 0"]),
        (["--method", "tau_norm", "--tau", "nan"], ["tau is nan; expected a finite number"]),
        (["--method", "tau_norm", "--tau", "x"], ["'x' is not a valid float"]),
        (["--method", "ccvr", "--data", "federated", "--rounds", "2"], ["ccvr takes none"]),
        (["--method", "lws", "--data", "pooled", "--rounds", "2"], ["lws takes none here"]),
        (["--method", "lws", "--data", "federated", "--rounds", "0"], ["0 is not at least 1"]),
        (["--method", "gla_fr", "--engine", "seral"], ["--engine", "nearest: 'serial'"]),
        (["--method", "gla_fr", "--engine", "auto"], ["--engine: no engine 'auto'"]),
        (["--method", "tau_norm", "--sweep", "tau"], ["'tau' is not NAME=A,B"]),
        (["--method", "tau_norm", "--sweep", "tua=1"], ["no constant 'tua'", "nearest: 'tau'"]),
        (["--method", "tau_norm", "--sweep", "tau=0,x"], ["'0,x' is not a list of numbers"]),
        (["--method", "tau_norm", "--sweep", "tau=1,1.0"], ["names a value twice"]),
        (["--method", "tau_norm", "--tau", "1", "--sweep", "tau=1"], ["swept and given"]),
        (["--method", "tau_norm", "--sweep", "tau=0,1"], ["never on the test set"]),
        ([], ["Missing option '--method'"]),
    ],
)
def test_mistakes_are_one_line(runs, capsys, arguments, parts):
    before = everything(runs["final"])
    assert main(["realign", str(runs["final"]), *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert all(part in captured.err for part in parts), captured.err
    assert everything(runs["final"]) == before


def test_a_place_without_a_run(tmp_path, capsys):
    assert main(["realign", str(tmp_path), "--method", "gla_fr"]) == 2
    assert "neither a run directory nor a folder of runs by seed" in capsys.readouterr().err
    assert everything(tmp_path) == []
