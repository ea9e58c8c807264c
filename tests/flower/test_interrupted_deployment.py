"""A real federation on this machine that is stopped, or in which an answer comes too late."""

from __future__ import annotations

import os
import signal

import pytest
from two_nodes import (
    assert_rows_equal,
    check_finished,
    flower_run,
    seconds_to_start,
    simulated,
    start_with_states,
    write_app,
)

pytestmark = [pytest.mark.slow, pytest.mark.flower, pytest.mark.timeout(900)]


def rows_of(directory):
    path = directory.path / "rounds.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def start(federation, **changes):
    directory = write_app(federation, **changes)
    federation.connect()
    federation.start_link("--insecure")
    for cid in (0, 1):
        start_with_states(federation, cid)
    return directory, flower_run(federation)


def test_a_stopped_run_goes_on(federation):
    """``flwr stop`` in round 2 or later, then the app once more with ``resume``."""
    directory, number = start(federation, rounds=4)
    federation.wait(lambda: rows_of(directory) >= 1)
    federation.call("flwr", "stop", number, "fedlt")
    listed = ("flwr", "list", "fedlt", "--format", "json")
    federation.wait(lambda: "stopped" in federation.call(*listed))
    assert directory.state == "unfinished"
    assert rows_of(directory) < 4
    flower_run(federation, resume=True)
    federation.wait(lambda: directory.state == "finished")
    check_finished(directory, 4)
    assert_rows_equal(directory.rounds(), simulated(federation, 4))


def test_a_late_answer_is_a_lost_client(federation):
    """A node stands still for longer than ``deployment.timeout``, and goes on afterwards."""
    directory, _ = start(federation, rounds=6, timeout=12 + 4 * seconds_to_start(federation))
    federation.wait(lambda: rows_of(directory) >= 1, 300)
    group = federation.processes["node1"].pid
    os.killpg(group, signal.SIGSTOP)
    before = rows_of(directory)
    later = before + 2  # the second one surely without it
    federation.wait(lambda: rows_of(directory) >= later, 300)
    os.killpg(group, signal.SIGCONT)
    federation.wait(lambda: directory.state == "finished", 300)
    lost = directory.result()["faults"]["log"]
    assert {(cid, kind) for _, cid, kind in lost} == {(1, "lost")}
    assert directory.result()["status"] == "finished"
