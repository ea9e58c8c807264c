"""Trackers get what rounds.jsonl gets, in every order of stopping and going on."""

from __future__ import annotations

import os
import re
import sqlite3
import time
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

from fedlt.errors import FedltError
from fedlt.runs import trackers
from fedlt.runs.directory import RunDirectory
from fedlt.runs.trackers import TRACKERS
from fedlt.simulate import run


class Memory:
    """A tracker that writes what it is told into a file."""

    module = "json"

    def __init__(self, folder, config):
        self.file = (folder / "told.txt").open("w")

    def log(self, round, values):
        assert all(type(value) is float for value in values.values())
        self.file.write(f"{round} {sorted(values)} {values['generic/accuracy']}\n")

    def finish(self):
        self.file.close()


@pytest.fixture
def memory(monkeypatch):
    monkeypatch.setitem(TRACKERS, "tensorboard", Memory)


def told(directory: RunDirectory) -> list[str]:
    return (directory.path / "trackers/tensorboard/told.txt").read_text().splitlines()


def test_a_tracker_gets_the_rows(lab, memory):
    done = lab.run(trackers=["tensorboard"])
    lines = told(done.directory)
    assert len(lines) == len(done.rows)
    for line, row in zip(lines, done.rows, strict=True):
        known = sorted({n for n, v in row.items() if v is not None and n != "round"} | {"seconds"})
        assert line == f"{row['round']} {known} {row['generic/accuracy']}"


def test_a_resumed_run_tells_everything_once(lab, memory):
    changes = {"rounds": 4, "trackers": ["tensorboard"]}
    whole = lab.run(**changes)
    resumed = lab.resume(lab.stopped(2, **changes))
    assert told(resumed.directory) == told(whole.directory)
    assert resumed.bits == whole.bits


def test_a_tracker_changes_nothing(lab, memory):
    plain, tracked = lab.run(), lab.run(trackers=["tensorboard"])
    assert tracked.bits == plain.bits
    assert tracked.result["config_hash"] == plain.result["config_hash"]
    assert not (plain.directory.path / "trackers").exists()


def test_a_tracker_that_fails_stops_alone(lab, memory, monkeypatch, caplog):
    def fail(self, round, values):
        raise OSError("disk")

    plain = lab.run()
    monkeypatch.setattr(Memory, "log", fail)
    assert lab.run(trackers=["tensorboard"]).bits == plain.bits
    assert "trackers: tensorboard stops: OSError: disk" in caplog.text


def test_a_tracker_that_does_not_open_stops_alone(lab, memory, monkeypatch, caplog):
    def fail(self, folder, config):
        raise OSError("full")

    monkeypatch.setattr(Memory, "__init__", fail)
    assert len(lab.run(rounds=1, trackers=["tensorboard"]).rows) == 1
    assert "trackers: tensorboard stops: OSError: full" in caplog.text


def test_a_missing_package_is_one_line_before_anything_is_written(lab, monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    config = lab.fresh(trackers=["mlflow"])
    message = re.escape("trackers: mlflow is not installed; pip install 'fedlt[mlflow]'")
    with pytest.raises(FedltError, match=message):
        run(config)
    assert RunDirectory.of(config).state == "absent"


def test_every_tracker_has_its_extra():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert set(TRACKERS) <= set(project["project"]["optional-dependencies"])


def have(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(find_spec(name) is None, reason=f"no {name} here")


@pytest.mark.filterwarnings("default")
@have("tensorboard")
def test_tensorboard(lab):
    done = lab.run(trackers=["tensorboard"])
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(done.directory.path / "trackers/tensorboard"))
    read.Reload()
    found = {event.step: event.value for event in read.Scalars("generic/accuracy")}
    assert found == pytest.approx({row["round"]: row["generic/accuracy"] for row in done.rows})


@pytest.mark.filterwarnings("default")
@have("mlflow")
def test_mlflow(lab, monkeypatch):
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY", raising=False)
    done = lab.run(trackers=["mlflow"])
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    with sqlite3.connect(done.directory.path / "trackers/mlflow/mlflow.db") as store:
        query = "select step, value from metrics where key = 'generic/accuracy'"
        found = dict(store.execute(query).fetchall())
    store.close()
    assert found == {row["round"]: row["generic/accuracy"] for row in done.rows}


@pytest.mark.filterwarnings("default")
@have("wandb")
def test_wandb_offline(lab, monkeypatch):
    monkeypatch.delenv("WANDB_ERROR_REPORTING", raising=False)
    done = lab.run(trackers=["wandb"])
    assert os.environ["WANDB_ERROR_REPORTING"] == "false"
    (written,) = (done.directory.path / "trackers/wandb").rglob("*.wandb")
    words = (b"generic/accuracy", b"personal/accuracy")
    deadline = time.monotonic() + 60  # another process writes the file, on its own time
    while not all(word in written.read_bytes() for word in words):
        assert time.monotonic() < deadline, written.read_bytes()
        time.sleep(0.1)
