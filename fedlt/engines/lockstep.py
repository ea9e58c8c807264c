"""Client tasks that take turns, and stop together wherever they train.

A task is a strategy's own blocking code, so each task is a greenlet: a call stack of its own in the
one thread. Exactly one task runs at a time, in order, until the task ends or asks for training.
When no task can go on, the clients that asked are trained together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from greenlet import GreenletExit, getcurrent, greenlet
from torch import Tensor

from fedlt.rng import set_torch_state, torch_state

if TYPE_CHECKING:
    from fedlt.client import Client
    from fedlt.optim.batch import Phase
from fedlt.client import Trainer

Answer = TypeVar("Answer")


@dataclass
class TrainRequest:
    """Request of a client that waits for training."""

    client: Client
    phase: Phase
    draws: list[Tensor]  # state of torch's global generator after the client's task
    metrics: dict[str, float] | None = None  # the answer


class Task(Generic[Answer]):
    """Task of one client, which runs only during a call of :meth:`resume`."""

    def __init__(self, work: Callable[[Trainer], Answer]) -> None:
        self._work = work  # the client of the work gets the trainer
        self._greenlet = greenlet(self._run)
        self._results: list[Answer] = []
        self.request: TrainRequest | None = None  # the pending request; None before the first

    @property
    def result(self) -> Answer:
        """Return value of the work."""
        return self._results[0]

    def _ask(self, client: Client, phase: Phase) -> dict[str, float]:
        """Return the training metrics, after waiting until the client is trained."""
        self.request = request = TrainRequest(client, phase, torch_state())
        self._greenlet.parent.switch()
        if request.metrics is None:
            raise GreenletExit
        set_torch_state(request.draws)
        return request.metrics

    def resume(self) -> None:
        """Run the task until the work ends or asks for training.

        Raises:
            BaseException: The exception of the work.
        """
        self.request = None
        self._greenlet.parent = getcurrent()
        self._greenlet.switch()

    def abandon(self) -> None:
        """End the work where the task waits for training."""
        if self._greenlet:
            self._greenlet.parent = getcurrent()
            self._greenlet.throw()

    def _run(self) -> None:
        self._results.append(self._work(self._ask))


def run_together(
    tasks: Sequence[Task[Answer]], train: Callable[[list[TrainRequest]], None]
) -> list[Answer]:
    """Run tasks to their end and return their results.

    Args:
        tasks: The tasks, in the order in which they run.
        train: Trains the waiting clients and writes their metrics.

    Raises:
        BaseException: The exception of the first failed task, or of ``train``.
    """
    running = list(tasks)
    try:
        while running:
            for task in running:
                task.resume()
            running = [task for task in running if task.request is not None]
            if running:
                train([task.request for task in running if task.request is not None])
    finally:
        for task in tasks:
            task.abandon()
    return [task.result for task in tasks]
