"""Tasks that take turns: their order, their draws, and how they end."""

from __future__ import annotations

import pytest
import torch

from fedlt.engines.lockstep import Task, run_together


def phases(name, count, log):
    """Return a task that asks ``count`` times and answers what it was told."""

    def work(trainer):
        told = []
        for number in range(count):
            log.append(f"{name}{number}")
            told.append(trainer(name, number)["loss"])
        log.append(f"{name} ends")
        return told

    return Task(work)


def test_tasks_take_turns_and_are_trained_together():
    log = []

    def train(requests):
        log.append([f"{request.client}{request.phase}" for request in requests])
        for request in requests:
            request.metrics = {"loss": float(request.phase)}

    tasks = [phases("a", 2, log), phases("b", 0, log), phases("c", 1, log)]
    assert run_together(tasks, train) == [[0.0, 1.0], [], [0.0]]
    assert log == ["a0", "b ends", "c0", ["a0", "c0"], "a1", "c ends", ["a1"], "a ends"]


def test_each_task_draws_from_a_stream_of_its_own():
    """Two tasks that interleave draw what each draws when nobody is between."""

    def work(seed):
        def draw(trainer):
            torch.manual_seed(seed)
            first = torch.rand(2)
            trainer(None, None)
            return torch.cat([first, torch.rand(2)])

        return Task(draw)

    def train(requests):
        torch.manual_seed(99)
        for request in requests:
            request.metrics = {}

    found = run_together([work(1), work(2)], train)
    for seed, drawn in zip((1, 2), found, strict=True):
        torch.manual_seed(seed)
        assert torch.equal(drawn, torch.rand(4))


def test_an_error_in_a_task_ends_the_others():
    ended = []

    def waits(trainer):
        try:
            trainer(None, None)
        finally:
            ended.append("first")

    def fails(trainer):
        raise KeyError("mine")

    tasks = [Task(waits), Task(fails), Task(waits)]
    with pytest.raises(KeyError, match="mine"):
        run_together(tasks, lambda requests: None)
    assert ended == ["first"]  # the third one never began


def test_an_error_in_training_ends_all_tasks():
    ended = []

    def waits(trainer):
        try:
            trainer(None, None)
        finally:
            ended.append(True)

    def train(requests):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        run_together([Task(waits), Task(waits)], train)
    assert ended == [True, True]
