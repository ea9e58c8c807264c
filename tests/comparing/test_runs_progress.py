"""Progress of many runs: what is left is counted in rounds, and shown as lines or as bars."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from fedlt.comparing import display as module
from fedlt.comparing.display import LiveRuns, Relay, RunsProgress, make_runs_progress


def console(*, terminal: bool) -> Console:
    return Console(file=io.StringIO(), width=100, force_terminal=terminal)


@pytest.fixture
def clock(monkeypatch):
    """Seconds since the start, as the test sets them."""
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_what_is_left_is_counted_in_rounds(clock):
    """Two runs of 10 and 30 rounds; the second went on after round 20: 20 rounds to run.

    After 5 of them in 60 seconds, 12 a round, 15 are left: 3 minutes.
    """
    out = console(terminal=False)
    told = make_runs_progress(out)
    assert type(told) is RunsProgress
    told.begin(["a", "b"], [10, 30], finished=4)
    assert told.remaining() == "?"
    told.advance(1, 20)
    clock[0] = 60.0
    told.advance(1, 22)
    told.advance(0, 0)
    told.advance(0, 3)
    assert told.remaining() == "3:00"
    told.advance(1, 30)
    told.finish(1, "b: 90 %")
    clock[0] = 130.0  # 13 rounds, 10 a round; 7 are left
    assert told.remaining() == "1:10"
    told.finish(0, "a: failed")
    told.stop()
    assert out.file.getvalue().splitlines() == [
        "4 of 6 runs are finished already",
        "5 of 6 runs, 0:32 left: b: 90 %",  # 60 s for 13 rounds, 7 left
        "6 of 6 runs, 0:00 left: a: failed",
    ]


def test_a_terminal_has_a_bar_for_every_run_that_goes_on(clock):
    out = console(terminal=True)
    told = make_runs_progress(out)
    assert isinstance(told, LiveRuns)
    told.begin(["FedAvg, seed 1", "FedROD, seed 1"], [10, 10])
    told.advance(0, 0)
    clock[0] = 30.0
    told.advance(0, 5)
    shown = [(task.description, task.completed, task.total) for task in told._bar.tasks]
    assert shown == [("0 of 2 runs", 5, 20), ("FedAvg, seed 1", 5, 10)]
    assert told._bar.tasks[0].fields["text"] == ", 1:30 left"
    told.finish(0, "FedAvg, seed 1: generic 90.0 %")
    shown = [(task.description, task.completed, task.total) for task in told._bar.tasks]
    assert shown == [("1 of 2 runs", 10, 20)]
    told.stop()
    text = out.file.getvalue()
    assert "1 of 2 runs, 1:00 left: FedAvg, seed 1: generic 90.0 %" in text


def test_a_run_passes_its_rounds_on():
    said = []
    relay = Relay(said.append)
    relay.start(10, done=4)
    relay.note("engine: serial")
    relay.advance(5, "generic 61.2 %")
    relay.stop()
    assert said == [4, 5]
