"""Processes that work on a list of tasks, and end with the parent process.

During a task its process may send progress messages, which go to ``hear``. A process that dies
loses its task and is replaced. When the caller leaves early, the processes get SIGTERM, at which a
run saves its state.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import ModuleType
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Product = TypeVar("Product")
Work = Callable[[Item, Callable[[Any], None]], Product]  # (task, function that sends a message)

PATIENCE = 20.0  # seconds that a process has to save its state


@dataclass
class _Worker:
    process: SpawnProcess
    connection: Connection
    position: int = -1  # of the process's task; -1: no task


@dataclass
class _Crew(Generic[Item, Product]):
    """Crew of processes, and the remaining tasks."""

    work: Work[Item, Product]
    tasks: Sequence[Item]
    lost: Callable[[Item, int], Product]  # the result of a task whose process died
    hear: Callable[[int, Any], None]  # gets a task's position and a message
    workers: list[_Worker]
    next: int = 0

    def hand_out(self, worker: _Worker) -> None:
        """Give a process its next task; without a task left, end the process."""
        if self.next < len(self.tasks):
            worker.position, self.next = self.next, self.next + 1
            worker.connection.send(self.tasks[worker.position])
        else:
            worker.position = -1

    def results(self) -> Iterator[tuple[int, Product]]:
        """Yield positions and results of tasks as they finish."""
        for worker in self.workers:
            self.hand_out(worker)
        while busy := {w.connection: w for w in self.workers if w.position >= 0}:
            for ready in wait(list(busy)):
                worker = busy[ready]  # type: ignore[index]
                position = worker.position
                try:
                    is_last, said = worker.connection.recv()
                except (EOFError, ConnectionError):
                    worker.process.join()
                    code = worker.process.exitcode or 0
                    is_last, said = True, self.lost(self.tasks[position], code)
                    self.workers[self.workers.index(worker)] = worker = _start(self.work)
                if is_last:
                    self.hand_out(worker)
                    yield position, said
                else:
                    self.hear(position, said)

    def stop(self) -> None:
        """End the processes."""
        for worker in self.workers:
            worker.connection.close()
            worker.process.terminate()
        for worker in self.workers:
            worker.process.join(PATIENCE)
            worker.process.kill()


@contextlib.contextmanager
def _bare_main() -> Iterator[None]:
    """Hide the main program inside the block: a process that starts here does not import it.

    A script that compares methods at its top level would otherwise be executed in every process.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _start(work: Work[Item, Product]) -> _Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(work, theirs), daemon=True)
    with _bare_main():
        process.start()
    theirs.close()
    return _Worker(process, ours)


def _serve(work: Work[Item, Product], connection: Connection) -> None:
    """Do tasks until the parent closes the connection."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the caller handles Ctrl-C for all
    with contextlib.suppress(KeyboardInterrupt):  # SIGTERM may come in the last line, too
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            while True:
                said = work(connection.recv(), partial(_say, connection))
                connection.send((True, said))
        except (EOFError, KeyboardInterrupt, ConnectionError):
            with contextlib.suppress(OSError):  # a SIGTERM that comes at this moment, ignored, too
                signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _say(connection: Connection, words: object) -> None:
    """Send a progress message to the parent; ignored if the parent has exited."""
    with contextlib.suppress(ConnectionError):
        connection.send((False, words))


def run_in_processes(
    work: Work[Item, Product],
    tasks: Sequence[Item],
    *,
    processes: int,
    lost: Callable[[Item, int], Product],
    hear: Callable[[int, Any], None],
) -> Iterator[tuple[int, Product]]:
    """Yield (position, result) of every task as tasks finish.

    Args:
        work: An importable function ``(task, say) -> result``; ``say(message)`` reaches ``hear``.
        tasks: The tasks; each is pickled.
        processes: Number of processes at once.
        lost: Returns the result of a task whose process died, from the task and the exit code.
        hear: Gets the position of a task at work and a message of its process.
    """
    workers = [_start(work) for _ in range(min(processes, len(tasks)))]
    crew = _Crew(work, tasks, lost, hear, workers)
    try:
        yield from crew.results()
    finally:
        crew.stop()
