"""Client tasks that take turns, and stop together wherever they train.

A task is a strategy's own blocking code, so each one is a greenlet: a stack of its own in the one
thread. Exactly one runs at a time, in the order of the tasks, until it ends or asks to be trained.
When all have done so, those that asked are trained together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from greenlet import GreenletExit, getcurrent, greenlet
from torch import Tensor

from fedlt.rng import set_torch_state, torch_state

if TYPE_CHECKING:
    from fedlt.batch import Phase
    from fedlt.client import Client
from fedlt.client import Trainer

Answer = TypeVar("Answer")


@dataclass
class TrainRequest:
    """A client that waits to be trained."""

    client: Client
    phase: Phase
    draws: list[Tensor]  # state of torch's global generator, as the client's task left it
    metrics: dict[str, float] | None = None  # the answer


class Task(Generic[Answer]):
    """One client's task, which runs only while :meth:`resume` is being called."""

    def __init__(self, work: Callable[[Trainer], Answer]) -> None:
        self._work = work  # its client gets the trainer
        self._greenlet = greenlet(self._run)
        self._results: list[Answer] = []
        self.request: TrainRequest | None = None  # what it waits for; None before it asked

    @property
    def result(self) -> Answer:
        """What the work returned."""
        return self._results[0]

    def _ask(self, client: Client, phase: Phase) -> dict[str, float]:
        """Wait until the client is trained."""
        self.request = request = TrainRequest(client, phase, torch_state())
        self._greenlet.parent.switch()
        if request.metrics is None:
            raise GreenletExit
        set_torch_state(request.draws)
        return request.metrics

    def resume(self) -> None:
        """Run until the work ends or asks.

        Raises:
            BaseException: What the work raised.
        """
        self.request = None
        self._greenlet.parent = getcurrent()
        self._greenlet.switch()

    def abandon(self) -> None:
        """End the work at the place where it waits."""
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
        tasks: They run in this order.
        train: Trains the clients that wait, and writes their metrics.

    Raises:
        BaseException: What the first task that failed raised, or ``train``.
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
