"""Ctrl-C at any place of the loop: what is finished is kept, and the run goes on from it."""

from __future__ import annotations

import pytest

from fedlt.checkpoints import load_checkpoint
from fedlt.engines.serial import SerialEngine
from fedlt.report.progress import SilentProgress
from fedlt.runs import RunDirectory
from fedlt.simulate import run


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
@pytest.mark.parametrize("scores", [1, 2, 3])
def test_in_an_evaluation_no_row_is_lost_and_none_comes_twice(
    lab, reference, interrupted, scores, every
):
    config, _ = interrupted(scores=scores, every=every)
    assert lab.resume(config).bits == reference(strategy="fedloge").bits


def test_after_a_round(lab, reference, interrupted):
    class Press(SilentProgress):
        def advance(self, round, text=""):
            if round == 2:
                raise KeyboardInterrupt

    config, checkpoint = interrupted(progress=Press())
    assert checkpoint.round == 2
    assert lab.resume(config).bits == reference(strategy="fedloge").bits
