"""Ctrl-C, SIGTERM and kill -9 of the driver: a usable checkpoint, and no process left behind."""

from __future__ import annotations

import shlex
import signal
import sys

import pytest

from fedlt.runs.checkpoints import load_checkpoint

SERIAL, RAY = "engine.name=serial", "engine={name: ray, workers: 2}"
ray = pytest.mark.ray
LOOPBACK = {
    "0100007F",  # 127.0.0.1
    "0000000000000000FFFF00000100007F",  # the same, as IPv6 writes it
    "00000000000000000000000001000000",  # ::1
}
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.mark.parametrize(
    ("engine", "number", "workers"),
    [
        pytest.param(SERIAL, signal.SIGINT, True, id="ctrl-c-serial"),
        pytest.param(SERIAL, signal.SIGTERM, True, id="sigterm-serial", marks=pytest.mark.slow),
        pytest.param(RAY, signal.SIGINT, True, id="ctrl-c-ray", marks=[ray, pytest.mark.slow]),
        pytest.param(RAY, signal.SIGTERM, True, id="sigterm-ray", marks=[ray, pytest.mark.slow]),
        pytest.param(
            RAY, signal.SIGINT, False, id="ctrl-c-ray-starts", marks=[ray, pytest.mark.slow]
        ),
        pytest.param(
            RAY, signal.SIGTERM, False, id="sigterm-ray-starts", marks=[ray, pytest.mark.slow]
        ),
    ],
)
def test_a_stopped_run_can_go_on(fedlt_run, wait, record_property, engine, number, workers):
    """Measured, idle to busy: 0.7 to 2.4 s on serial, 2.6 to 3.9 s on Ray."""
    run = fedlt_run(engine)
    processes = run.reach(3, workers=workers)
    run.signal(number, group=number == signal.SIGINT)
    code, error, seconds = run.end()
    record_property("seconds", round(seconds, 2))
    assert code == 130, error
    command = shlex.join(["fedlt", "run", "here.yaml", engine, "--resume"])
    assert seconds < 30
    wait(lambda: not any(one.is_alive() for one in processes), 30)
    checkpoint = load_checkpoint(run.directory / "checkpoints")
    assert checkpoint is not None
    assert checkpoint.round >= 3
    due = checkpoint.meta["due"] is not None
    where = "with the evaluation of round" if due else "after round"
    last = error.splitlines()[-1]
    assert last == f"interrupted; to go on {where} {checkpoint.round}: {command}"
    assert run.rounds() == checkpoint.round - due
    left = [path for path in run.temporary.rglob("*") if path.is_file()]
    assert left == []


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_no_ray_process_outlives_a_killed_driver(fedlt_run, wait, record_property):
    """Measured: servers at once, by the kernel; workers in 2 s; two agents in 60 to 90 s.

    The agents wait a minute for Ray's control service, to report that it has gone.
    """
    run = fedlt_run(RAY)
    processes = run.reach(2)
    assert any("raylet" in one.command for one in processes)
    run.signal(signal.SIGKILL, group=False)
    assert run.end()[0] == -signal.SIGKILL
    workers = [one for one in processes if one.is_worker]
    assert workers  # the second one may still be on its way up
    record_property("workers", round(wait(lambda: not any(w.is_alive() for w in workers), 60), 2))
    seconds = wait(lambda: not any(one.is_alive() for one in processes), 250)
    record_property("seconds", round(seconds, 2))


@pytest.mark.slow
@pytest.mark.ray
def test_everything_listens_on_the_loopback_address_only(fedlt_run, listening):
    run = fedlt_run(RAY)
    processes = run.reach(2)
    addresses = listening()
    found = [
        (addresses[inode], one.command)
        for one in processes
        for inode in one.sockets()
        if inode in addresses
    ]
    assert len(found) >= 5  # gcs_server, raylet, its agents, the driver, two workers
    assert [pair for pair in found if pair[0] not in LOOPBACK] == []
    dashboard = [one for one in processes if "dashboard/dashboard.py" in one.command]
    assert [one.command for one in dashboard if one.sockets() & set(addresses)] == []
