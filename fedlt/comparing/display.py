"""Progress of many runs: a bar per run in a terminal or notebook, else a line per finished run.

run (in any process) -> Relay -> position and round of the run -> RunsProgress: time left
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn
from rich.progress import Progress as Bar

from fedlt.progress import Board, Progress, in_notebook, round_time


class Relay(Progress):
    """Progress of one run, passed on as the number of finished rounds."""

    def __init__(self, tell: Callable[[int], None]) -> None:
        self._tell = tell

    def start(self, total_rounds: int, done: int = 0) -> None:
        """Pass on the round at which the run begins."""
        self._tell(done)

    def advance(self, round: int, text: str = "") -> None:
        """Pass on that ``round`` is finished."""
        self._tell(round)


class RunsProgress:
    """Progress that counts runs and rounds, and prints one line per finished run."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def begin(self, labels: Sequence[str], rounds: Sequence[int], finished: int = 0) -> None:
        """Begin with runs ``labels`` of ``rounds`` each; ``finished`` further runs are done."""
        self._labels, self._finished = list(labels), finished
        self._runs = finished + len(labels)
        self._left = list(rounds)  # rounds left, per run
        self._first: list[int | None] = [None] * len(labels)  # round after which each run began
        self._executed = [0] * len(labels)
        self._began = time.monotonic()
        if finished:
            self.note(f"{finished} of {self._runs} runs are finished already")

    def advance(self, position: int, done: int) -> None:
        """Note that a run has finished ``done`` rounds, including rounds before it was resumed."""
        first = self._first[position]
        if first is None:
            self._first[position] = first = done
            self._left[position] -= done
        new = done - first - self._executed[position]
        self._executed[position] += new
        self._left[position] -= new

    def finish(self, position: int, words: str) -> None:
        """Note that a run has ended; ``words`` say how."""
        self._left[position] = 0
        self._finished += 1
        self.note(f"{self._finished} of {self._runs} runs, {self.remaining()} left: {words}")

    def remaining(self) -> str:
        """Return the time for the remaining rounds at the pace of the rounds run so far."""
        executed, left = sum(self._executed), sum(self._left)
        if not left:
            return round_time(0)
        if not executed:
            return "?"
        return round_time((time.monotonic() - self._began) / executed * left)

    def note(self, line: str) -> None:
        """Print ``line``."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def stop(self) -> None:
        """Stop the display; may be called twice."""


class LiveRuns(RunsProgress):
    """Progress with a bar over all rounds, and a bar for each run at work."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("rounds{task.fields[text]}"),
            console=console,
            transient=True,
        )
        self._tasks: dict[int, TaskID] = {}

    def begin(self, labels: Sequence[str], rounds: Sequence[int], finished: int = 0) -> None:
        """Show the bar over all rounds."""
        super().begin(labels, rounds, finished)
        self._all = self._bar.add_task(self._count(), total=sum(rounds), text="")
        self._rounds = list(rounds)
        if labels:
            self._bar.start()

    def advance(self, position: int, done: int) -> None:
        """Move the run's bar and the bar over all rounds."""
        super().advance(position, done)
        if position not in self._tasks:
            task = self._bar.add_task(self._labels[position], total=self._rounds[position], text="")
            self._tasks[position] = task
        self._bar.update(self._tasks[position], completed=done)
        self._show_all()

    def finish(self, position: int, words: str) -> None:
        """Remove the run's bar."""
        if position in self._tasks:
            self._bar.remove_task(self._tasks.pop(position))
        super().finish(position, words)
        self._show_all()

    def _count(self) -> str:
        return f"{self._finished} of {self._runs} runs"

    def _show_all(self) -> None:
        done = sum(self._rounds) - sum(self._left)
        words = f", {self.remaining()} left"
        self._bar.update(self._all, description=self._count(), completed=done, text=words)

    def stop(self) -> None:
        """Remove the display; the printed lines above stay."""
        self._bar.stop()


class NotebookRuns(RunsProgress):
    """Progress below a notebook's cell: a bar over all rounds, one per run at work, and lines."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._board = Board()
        self._lines: list[str] = []
        self._rounds: list[int] = []
        self._done: dict[int, int] = {}  # rounds of the runs at work

    def begin(self, labels: Sequence[str], rounds: Sequence[int], finished: int = 0) -> None:
        """Show the bar over all rounds."""
        super().begin(labels, rounds, finished)
        self._rounds = list(rounds)
        self._show(now=True)

    def advance(self, position: int, done: int) -> None:
        """Move the run's bar and the bar over all rounds."""
        super().advance(position, done)
        self._done[position] = done
        self._show(now=False)

    def finish(self, position: int, words: str) -> None:
        """Remove the run's bar."""
        self._done.pop(position, None)
        super().finish(position, words)

    def note(self, line: str) -> None:
        """Add ``line`` below the bars."""
        self._lines.append(line)
        self._show(now=True)

    def stop(self) -> None:
        """Show the bar over all rounds and the lines alone; they stay below the cell."""
        self._done.clear()
        self._show(now=True)

    def _show(self, *, now: bool) -> None:
        total = sum(self._rounds)
        words = f"{self._finished} of {self._runs} runs"
        if sum(self._left):
            words += f", {self.remaining()} left"
        bars = [(total - sum(self._left), total, words)] if total else []
        bars += [
            (done, self._rounds[position], f"{self._labels[position]}, round {done}")
            for position, done in sorted(self._done.items())
        ]
        self._board.show(bars, self._lines, now=now)


def make_runs_progress(console: Console) -> RunsProgress:
    """Return a live display for a terminal or a notebook, else a progress that prints lines."""
    if in_notebook() and not console.quiet:
        return NotebookRuns(console)
    live = console.is_terminal and not console.quiet
    return LiveRuns(console) if live else RunsProgress(console)
