"""Servers of a local Ray that are killed, and a temporary folder that is too long for it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

import pytest

from fedlt.engines.ray_home import remove_dead
from fedlt.runs.checkpoints import load_checkpoint

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(400),
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]
SLOW = """
import time
from dataclasses import dataclass

from fedlt.client import ClientPlugin


@dataclass(frozen=True)
class Slow(ClientPlugin):
    def loss(self, logits, batch, client):
        time.sleep(0.1)
        return super().loss(logits, batch, client)
"""


@pytest.mark.parametrize(
    ("server", "name"),
    [
        pytest.param("gcs/gcs_server ", "control service", id="gcs", marks=pytest.mark.slow),
        pytest.param("raylet/raylet ", "raylet", id="raylet", marks=pytest.mark.slow),
        pytest.param(
            r"ray::DashboardAgent|dashboard/agent\.py", "agent", id="agent", marks=pytest.mark.slow
        ),
    ],
)
def test_a_server_that_is_killed_ends_the_run_in_one_line(
    fedlt_run, wait, tmp_path, record_property, server, name
):
    """Measured on a busy machine: 9 to 11 s, of which Ray's own end takes 5."""
    (tmp_path / "slow.py").write_text(SLOW)
    arguments = ("engine={name: ray, workers: 1}", "checkpoint.every=1000", "client=slow.py:Slow")
    run = fedlt_run(*arguments)
    processes = run.reach(2)
    (victim,) = [one for one in processes if re.search(server, one.head)]
    os.kill(victim.pid, signal.SIGKILL)
    code, error, seconds = run.end()
    record_property("seconds", round(seconds, 2))
    assert code == 1, error
    saved = load_checkpoint(run.directory / "checkpoints")
    assert saved is not None, error
    where = re.escape(f"round {saved.round}: fedlt run here.yaml ")
    pattern = rf"error: Ray has stopped: its {name} has ended; to go on \w.* {where}.* --resume\n"
    *before, last = error.splitlines(keepends=True)
    assert re.fullmatch(pattern, last), error
    assert [line for line in before if "state-dump" in line] == []
    assert saved.round >= 2
    assert run.rounds() == saved.round - (saved.meta["due"] is not None)
    assert seconds < 20
    remove_dead(run.temporary)  # as the next start does
    assert list(run.temporary.glob("fedlt-*")) == []
    wait(lambda: not any(one.is_alive() for one in processes), 30)


@pytest.mark.slow
def test_a_worker_that_dies_while_it_starts_is_replaced(fedlt_run, wait, tmp_path, monkeypatch):
    """The driver goes on meanwhile. Ray looks for the worker after a time, by itself 60 s."""
    monkeypatch.setenv("RAY_worker_register_timeout_seconds", "20")
    (tmp_path / "slow.py").write_text(SLOW)
    run = fedlt_run("engine={name: ray, workers: 1}", "client=slow.py:Slow")
    wait(lambda: any(one.is_worker for one in run.processes()))
    for one in run.processes():
        if one.is_worker:
            os.kill(one.pid, signal.SIGKILL)
    run.reach(2)
    run.signal(signal.SIGINT, group=True)
    code, error, _ = run.end()
    assert code == 130, error


@pytest.mark.slow
def test_a_long_temporary_folder(tmp_path):
    """Ray's sockets lie in a short folder then."""
    long = tmp_path / ("x" * 90)
    long.mkdir()
    (tmp_path / "base.yaml").write_text(
        "name: long\nrounds: 1\nmodel: {width: 4}\nengine: {name: ray, workers: 1}\n"
        "data: {dataset: synthetic, options: {num_classes: 4, train_per_class: 20}}\n"
        "partition: {num_clients: 3}\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "fedlt", "run", "base.yaml"],
        cwd=tmp_path,
        env=os.environ | {"TMPDIR": str(long)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "error" not in done.stderr
