"""Jobs to a call of a Ray worker: groups by hand, a pool of paper actors, a worker's answers."""

from __future__ import annotations

import pytest
import torch
from by_hand import tasks_of
from ray import exceptions

from fedlt.engines import ray_pool
from fedlt.engines.engine import Job
from fedlt.engines.ray_pace import MAX_BYTES, Pace
from fedlt.engines.ray_pool import ActorPool
from fedlt.engines.ray_worker import RayWorker
from fedlt.engines.serial import SerialEngine
from fedlt.errors import RunError
from fedlt.flower.records import tensors_of
from fedlt.flower.server_half import make_server_half


def pace(seconds, *, images=100, size=0):
    """Return a pace that has seen one job."""
    known = Pace()
    known.learn(images, seconds, size)
    return known


@pytest.mark.parametrize(
    ("seconds", "jobs", "workers", "number"),
    [
        (0.0004, 10, 2, 5),  # 2 ms: a worker's whole share
        (0.0004, 11, 2, 6),
        (0.0004, 64, 1, 50),  # 0.02 s / 0.4 ms
        (0.0004, 1, 2, 1),
        (0.07, 10, 2, 3),  # 0.75 * 0.7 s / 2 = 0.2625 s: 3.75 jobs
        (0.04, 40, 2, 7),  # 0.3 s / 0.04 s = 7.5 jobs
        (0.2, 10, 2, 1),  # 0.3 s hold one job
        (30.0, 10, 2, 1),
    ],
)
def test_calls_are_short_and_leave_work_for_the_others(seconds, jobs, workers, number):
    assert pace(seconds).group([100] * jobs, workers) == number


def test_a_job_counts_by_its_images():
    """1 ms an image; 0.3 s hold 200 images and 60, not the next 60."""
    known = pace(0.1)
    assert known.group([200, 60, 60, *[40] * 20], 2) == 2
    assert known.group([400, 60, 60, *[40] * 20], 2) == 1


def test_nothing_is_grouped_before_an_answer_and_big_answers_go_alone():
    assert Pace().group([100] * 10, 2) == 1
    assert pace(0.0004, size=MAX_BYTES // 3).group([100] * 10, 2) == 3
    assert pace(0.0004, size=MAX_BYTES + 1).group([100] * 10, 2) == 1
    assert pace(0.0, images=0).group([0] * 10, 2) == 1


def test_new_rounds_count_more():
    """0.5 * 1 s + 0.1 s for 0.5 * 100 + 100 images: 4 ms an image, of which 0.3 s hold 75."""
    known = pace(1.0)
    known.begin()
    known.learn(100, 0.1, 0)
    assert known.group([24] * 40, 2) == 3
    assert known.group([18] * 40, 2) == 4


class Paper:
    """Actors of paper: a call is a list of jobs, done at once; some jobs kill their actor."""

    def __init__(self, monkeypatch, deadly):
        self.deadly, self.calls = dict(deadly), []
        monkeypatch.setattr(ray_pool.ray, "wait", lambda refs, **_: (list(refs)[:1], []))
        monkeypatch.setattr(ray_pool.ray, "get", self._get)
        monkeypatch.setattr(ray_pool.ray, "kill", lambda actor: None)
        self.pool = ActorPool(
            lambda: (object(), ("setup", object())),
            2,
            count_places=lambda: 2,
            check=lambda: None,
            is_remote=False,
        )

    def submit(self, actor, positions):
        self.calls.append(tuple(positions))
        kills = [position for position in positions if self.deadly.get(position)]
        for position in kills:
            self.deadly[position] -= 1
        return ("died" if kills else "done", tuple(positions), len(self.calls))

    def _get(self, ref, timeout=None):
        if ref[0] == "died":
            raise exceptions.RayActorError
        return [10 * position for position in ref[1]] if ref[0] == "done" else None

    def run(self, jobs):
        groups = lambda waiting, workers: min(len(waiting), 4)  # noqa: E731
        return list(self.pool.run(self.submit, range(jobs), lambda n: f"job {n}", groups))


def test_grouped_jobs_give_one_result_each_in_order(monkeypatch):
    paper = Paper(monkeypatch, {})
    assert paper.run(10) == [10 * position for position in range(10)]
    assert sorted(position for call in paper.calls for position in call) == list(range(10))
    assert max(map(len, paper.calls)) == 4


def test_the_jobs_of_a_dead_call_are_done_again_one_by_one(monkeypatch):
    paper = Paper(monkeypatch, {2: 1})
    assert paper.run(10) == [10 * position for position in range(10)]
    again = [call for call in paper.calls if len(call) == 1]
    assert {(0,), (1,), (2,), (3,)} <= set(again)


def test_a_deadly_job_is_named_and_not_its_neighbours(monkeypatch):
    paper = Paper(monkeypatch, {2: 3})
    with pytest.raises(RunError, match="job 2: its worker died 3 times"):
        paper.run(10)
    assert [call for call in paper.calls if 2 in call] == [(0, 1, 2, 3), (2,), (2,)]


def test_jobs_of_one_call_answer_as_jobs_of_their_own(lab):
    """The scratch model is overwritten by the next job, so each answer has tensors of its own."""
    federation = lab.federation(strategy="fedloge", clients_per_round=None)
    server, worker = make_server_half(federation.view), RayWorker([])
    worker.setup((federation.shares, federation.observer), None)

    def answers(calls):
        jobs = [
            Job([task], [engine.context(task.metadata.dst_node_id)], reduce=True)
            for task in tasks_of(server, engine)
        ]
        found = []
        for call in calls(jobs):
            for timed in worker.run(call, {}, None, [None] * len(call)):
                (reply,), (context,) = timed.replies, timed.contexts
                records = reply.content["arrays"], context.state["personal"]
                tensors = [{n: t.clone() for n, t in tensors_of(r).items()} for r in records]
                found.append((timed.size, tensors))
        return found

    with SerialEngine(federation) as engine:
        together, singly = answers(lambda jobs: [jobs]), answers(lambda jobs: [[j] for j in jobs])
    assert len(together) == 5
    for (size, one), (_, other) in zip(together, singly, strict=True):
        assert size == sum(tensor.nbytes for part in one for tensor in part.values())
        for part, same in zip(one, other, strict=True):
            assert all(torch.equal(part[name], same[name]) for name in same)
