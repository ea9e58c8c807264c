"""Ctrl-C at any place of the loop: no finished round is lost, and the run goes on from it."""

from __future__ import annotations

import os
import signal
import time

import pytest

from fedlt.engines.serial import SerialEngine
from fedlt.errors import RunError
from fedlt.federation import packing
from fedlt.federation.ledger import Ledger
from fedlt.flower.adapter import ServerHalf
from fedlt.flower.stock import StockFlowerStrategy
from fedlt.machine.stopping import Stops
from fedlt.progress import Progress
from fedlt.runs.checkpoints import load_checkpoint
from fedlt.runs.directory import RunDirectory
from fedlt.runs.endings import going_on
from fedlt.runs.trackers import Trackers
from fedlt.simulate import run
from fedlt.worker.diagnosis import Diagnosis


class Interrupted(SerialEngine):
    """Is interrupted in the middle of a round's tasks or of its evaluation."""

    jobs_left = scores_left = 10**9

    def run_jobs(self, jobs):
        for result in super().run_jobs(jobs):
            yield result
            Interrupted.jobs_left -= 1
            if Interrupted.jobs_left == 0:
                raise KeyboardInterrupt

    def run_scores(self, requests):
        for result in super().run_scores(requests):
            yield result
            Interrupted.scores_left -= 1
            if Interrupted.scores_left == 0:
                raise KeyboardInterrupt


@pytest.fixture
def interrupted(lab, monkeypatch):
    """Return what runs until it is interrupted, and the checkpoint that is left."""

    def of(*, jobs=0, scores=0, progress=None, every=50):
        monkeypatch.setattr(Interrupted, "jobs_left", jobs)
        monkeypatch.setattr(Interrupted, "scores_left", scores)
        monkeypatch.setattr("fedlt.simulate.engine_class", lambda name: Interrupted)
        config = lab.fresh(strategy="fedloge", checkpoint={"every": every})
        with pytest.raises(KeyboardInterrupt):
            run(config, progress=progress)
        monkeypatch.undo()
        return config, load_checkpoint(RunDirectory.of(config).checkpoints)

    return of


@pytest.mark.parametrize(("jobs", "kept"), [(1, 0), (3, 0), (4, 1), (8, 2)])
def test_between_tasks_the_last_round_is_kept(lab, reference, interrupted, jobs, kept):
    """Rounds of three tasks: after the 8th, two rounds are finished; none was to be saved yet."""
    config, checkpoint = interrupted(jobs=jobs)
    assert checkpoint.round == kept
    assert lab.resume(config).bits == reference(strategy="fedloge").bits


@pytest.mark.parametrize("every", [1, 50])
@pytest.mark.parametrize(("scores", "kept"), [(1, 1), (2, 2), (3, 3)])
def test_in_an_evaluation_no_round_is_lost_and_none_comes_twice(
    lab, reference, interrupted, scores, kept, every
):
    """One request a round: the round before it is trained, so it is on disk; its line is due."""
    config, checkpoint = interrupted(scores=scores, every=every)
    directory = RunDirectory.of(config)
    assert checkpoint.round == kept
    assert [row["round"] for row in directory.rounds()] == list(range(1, kept))
    assert going_on(directory) == f"to go on with the evaluation of round {kept}"
    assert lab.resume(config).bits == reference(strategy="fedloge").bits


def test_after_a_round(lab, reference, interrupted):
    class Press(Progress):
        def advance(self, round, text=""):
            if round == 2:
                raise KeyboardInterrupt

    config, checkpoint = interrupted(progress=Press())
    assert checkpoint.round == 2
    assert going_on(RunDirectory.of(config)) == "to go on after round 2"
    assert lab.resume(config).bits == reference(strategy="fedloge").bits


# ---- a real signal, or an error, at every step of a round

PLACES = {
    "the server's step": (ServerHalf, "aggregate"),
    "the personal states": (SerialEngine, "commit"),
    "the books": (Ledger, "note"),
    "an evaluation": (SerialEngine, "run_scores"),
    "what is kept of it": (RunDirectory, "write_evaluation"),
    "diagnosis": (Diagnosis, "measure"),
    "the row": (RunDirectory, "append_round"),
    "a tracker": (Trackers, "log"),
    "a checkpoint": (packing, "save_checkpoint"),
}
LATER = ("a tracker", "a checkpoint")  # when the row of a round is written
SETTING = {
    "strategy": "fedloge",
    "diagnostics": {"every": 1, "clients": 2},
    "checkpoint": {"every": 50},
}


def at(monkeypatch, place, act, *, call=2, before=True):
    """Let ``act`` happen in the ``call``-th call at a place, before or after what it does."""
    owner, name = PLACES[place]
    real, left = getattr(owner, name), [call]

    def acting(*arguments, **more):
        left[0] -= 1
        if left[0] == 0 and before:
            act()
        done = real(*arguments, **more)
        if left[0] == 0 and not before:
            act()
        return done

    monkeypatch.setattr(owner, name, acting)


def press():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.001)  # Python calls the handler between two instructions


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("place", PLACES)
def test_a_signal_anywhere_in_the_second_round(lab, reference, monkeypatch, place, before):
    """What has changed together is on disk together: round 2 is trained, wherever it is."""
    config = lab.fresh(**SETTING)
    if place == "a checkpoint":  # the first one is written for the round that is interrupted
        config = config.model_copy(update={"checkpoint": type(config.checkpoint)(every=2)})
    at(monkeypatch, place, press, before=before, call=1 if place == "a checkpoint" else 2)
    with pytest.raises(KeyboardInterrupt):
        run(config)
    monkeypatch.undo()
    directory = RunDirectory.of(config)
    checkpoint = load_checkpoint(directory.checkpoints)
    has_row = place in LATER or place == "the row"
    assert (checkpoint.round, len(directory.rounds())) == (2, 1 + has_row)
    assert (checkpoint.meta["due"] is None) == has_row
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert lab.resume(config).bits == reference(**SETTING).bits


class FullError(Exception):
    pass


def fail():
    raise FullError


@pytest.mark.parametrize("place", [p for p in PLACES if p not in ("a checkpoint", "a tracker")])
def test_an_error_loses_no_finished_round(lab, reference, monkeypatch, place):
    """A failing step leaves round 1; what fails after it leaves round 2, whose line is due.

    Personal states and books change in memory alone: they do not fail half-way.
    """
    config = lab.fresh(**SETTING)
    at(monkeypatch, place, fail)
    with pytest.raises(RunError, match="FullError"):
        run(config)
    monkeypatch.undo()
    checkpoint = load_checkpoint(RunDirectory.of(config).checkpoints)
    kept = {"the server's step": 1, "the personal states": None, "the books": None}.get(place, 2)
    assert (checkpoint and checkpoint.round) == kept
    assert lab.resume(config).bits == reference(**SETTING).bits


RULE = {"faults": {"detect": {"max_ratio": 1.5}}, "checkpoint": {"every": 50}}


@pytest.mark.parametrize(
    ("strategy", "half"),
    [
        ("fedavg", ServerHalf),
        ("flwr.serverapp.strategy:FedAdam", StockFlowerStrategy),
    ],
)
def test_a_failed_step_leaves_nothing_behind_in_the_server(
    lab, reference, monkeypatch, strategy, half
):
    """The norm rule remembers medians, FedAdam moments: a round that is done again adds one."""
    config = lab.fresh(strategy=strategy, **RULE)
    real, left = half.aggregate, [2]

    def failing(self, *arguments):
        left[0] -= 1
        done = real(self, *arguments)
        if left[0] == 0:
            raise FullError
        return done

    monkeypatch.setattr(half, "aggregate", failing)
    with pytest.raises(RunError, match="FullError"):
        run(config)
    monkeypatch.undo()
    assert load_checkpoint(RunDirectory.of(config).checkpoints).round == 1
    assert lab.resume(config).bits == reference(strategy=strategy, **RULE).bits


def test_a_second_signal_while_the_first_saves(lab, reference, monkeypatch):
    """Ctrl-C twice: the second one comes while the checkpoint of the first is written."""
    config = lab.fresh(**SETTING)

    def again():
        time.sleep(1.1)  # not the same press: see fedlt/machine/stopping.py
        press()

    at(monkeypatch, "an evaluation", press)
    at(monkeypatch, "a checkpoint", again, call=1)
    with pytest.raises(KeyboardInterrupt):
        run(config)
    monkeypatch.undo()
    assert load_checkpoint(RunDirectory.of(config).checkpoints).round == 2
    assert lab.resume(config).bits == reference(**SETTING).bits


def test_an_evaluation_that_fails_again_keeps_the_round(lab, reference, monkeypatch):
    """Stopped twice in the same evaluation, by an error and by Ctrl-C."""
    config = lab.fresh(**SETTING)
    at(monkeypatch, "an evaluation", fail)
    with pytest.raises(RunError):
        run(config)
    monkeypatch.undo()
    at(monkeypatch, "an evaluation", press, call=1)
    with pytest.raises(KeyboardInterrupt):
        run(config, resume=True)
    monkeypatch.undo()
    assert load_checkpoint(RunDirectory.of(config).checkpoints).round == 2
    assert lab.resume(config).bits == reference(**SETTING).bits


# ---- the signals themselves


def test_a_held_signal_comes_at_the_end():
    stops, done = Stops(), []

    def work():
        with stops.held():
            press()
            done.append("inside")
            with stops.held():
                press()
            done.append("still inside")
        done.append("after")

    with stops, pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["inside", "still inside"]


def test_the_third_press_does_not_wait():
    stops, done = Stops(), []

    def work():
        for number in (1, 2, 3):
            press()
            done.append(number)

    with stops, stops.held(), pytest.raises(KeyboardInterrupt):
        work()
    assert done == [1, 2]


def test_a_second_press_at_once_says_nothing_new():
    stops, done = Stops(), []
    with stops:
        with pytest.raises(KeyboardInterrupt):
            press()
        press()
        done.append("went on")
    assert done == ["went on"]


def test_somebody_elses_handler_stays(monkeypatch):
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        with Stops():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.001)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]
