"""Progress of a run, or of one long task: a bar with the time left, or plain lines."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence
from html import escape
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar

BarState = tuple[int, int, str]  # rounds done, rounds in total, words beside the bar


class Progress:
    """Progress reports of a running run. This base class prints nothing."""

    def start(self, total_rounds: int, done: int = 0) -> None:
        """Begin; a resumed run has ``done`` of ``total_rounds`` rounds finished already."""

    def advance(self, round: int, text: str = "") -> None:
        """Report that ``round`` is finished.

        ``text`` holds the last accuracies; an empty text leaves the shown accuracies unchanged.
        """

    def note(self, line: str) -> None:
        """Report one line of news, such as a client that was left out."""

    def stop(self) -> None:
        """End the report; a second call does nothing."""


class LiveProgress(Progress):
    """A bar in the terminal: rounds, elapsed and remaining time, and the last accuracies."""

    def __init__(self, console: Console, label: str = "") -> None:
        self._console = console
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[text]}"),
            console=console,
        )
        self._task = self._bar.add_task(label or "round", total=None, text="")

    def start(self, total_rounds: int, done: int = 0) -> None:
        """Show the bar."""
        self._bar.reset(self._task, total=total_rounds, completed=done, text="")
        self._bar.start()

    def advance(self, round: int, text: str = "") -> None:
        """Move the bar to ``round``."""
        self._bar.update(self._task, completed=round)
        if text:
            self._bar.update(self._task, text=text)

    def note(self, line: str) -> None:
        """Print ``line`` above the bar."""
        self._console.print(line, markup=False, highlight=False)

    def stop(self) -> None:
        """Stop updating the bar, which stays on the screen."""
        self._bar.stop()


def in_notebook() -> bool:
    """Return True inside a Jupyter kernel, also that of an editor or of a hosted notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")


class Board:
    """Output below a notebook's cell that is replaced as a run goes on; needs no widgets."""

    PAUSE = 0.2  # seconds between two updates

    def __init__(self) -> None:
        self._handle: Any = None
        self._shown = 0.0

    def show(
        self, bars: Sequence[tuple[int, int, str]], lines: Sequence[str], *, now: bool
    ) -> None:
        """Show bars (done, total, text) with lines of text below; too early updates are left out.

        Args:
            bars: The bars; a bar without a total is shown as text alone.
            lines: The lines.
            now: True to show also an early update.
        """
        from IPython.display import HTML, display

        if not now and time.monotonic() - self._shown < self.PAUSE:
            return
        self._shown = time.monotonic()
        parts = [_bar_html(*bar) for bar in bars] + [f"<div>{escape(line)}</div>" for line in lines]
        page = HTML(f'<div style="font-family: monospace">{"".join(parts)}</div>')
        if self._handle is None:
            self._handle = display(page, display_id=True)
        else:
            self._handle.update(page)


def _bar_html(done: int, total: int, text: str) -> str:
    bar = f'<progress value="{done}" max="{total}"></progress> ' if total else ""
    return f"<div>{bar}{escape(text)}</div>"


class NotebookProgress(Progress):
    """A bar below a notebook's cell: rounds, remaining time, the last accuracies, and news."""

    def __init__(self, label: str = "") -> None:
        self._label = f"{label}: " if label else ""
        self._board = Board()
        self._lines: list[str] = []
        self._total = self._first = self._done = 0
        self._began = time.monotonic()
        self._text = ""

    def start(self, total_rounds: int, done: int = 0) -> None:
        """Show the bar."""
        self._total, self._first, self._done, self._text = total_rounds, done, done, ""
        self._began = time.monotonic()
        self._show(now=True)

    def advance(self, round: int, text: str = "") -> None:
        """Move the bar to ``round``."""
        self._done, self._text = round, text or self._text
        self._show(now=round == self._total)

    def note(self, line: str) -> None:
        """Add ``line`` below the bar."""
        self._lines.append(line)
        self._show(now=True)

    def stop(self) -> None:
        """Show the last round that was finished; the bar stays below the cell."""
        if self._total:
            self._show(now=True)

    def _show(self, *, now: bool) -> None:
        words = f"{self._label}round {self._done} of {self._total}" if self._total else self._label
        run = self._done - self._first
        if run > 0 and self._done < self._total:
            seconds = (time.monotonic() - self._began) / run * (self._total - self._done)
            words += f", {round_time(seconds)} left"
        words += f", {self._text}" if self._text else ""
        self._board.show([(self._done, self._total, words)], self._lines, now=now)


class LineProgress(Progress):
    """Progress as plain lines for logs and pipes, one per tenth of the rounds or per round."""

    def __init__(self, console: Console, label: str = "", *, every_round: bool = False) -> None:
        self._console, self._every = console, every_round
        self._label = f"{label}: " if label else ""
        self._total = self._done = 0
        self._began = time.monotonic()
        self._text = ""

    def start(self, total_rounds: int, done: int = 0) -> None:
        """Remember the start, and print a line if the run resumes."""
        self._total, self._done, self._text = total_rounds, done, ""
        self._began = time.monotonic()
        if done:
            self.note(f"{self._label}going on after round {done} of {total_rounds}")

    def advance(self, round: int, text: str = "") -> None:
        """Print a line if a line is due after ``round``."""
        self._text = text or self._text
        if not self._every and 10 * round // self._total == 10 * (round - 1) // self._total:
            return
        seconds = (time.monotonic() - self._began) / max(round - self._done, 1)
        left = round_time(seconds * (self._total - round))
        words = f"{self._label}round {round} of {self._total}, {left} left"
        self.note(f"{words}, {self._text}" if self._text else words)

    def note(self, line: str) -> None:
        """Print ``line``."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def _error_console() -> Console:
    """Return a console on standard error; it is quiet where fedlt's warnings are not logged."""
    return Console(stderr=True, quiet=not logging.getLogger("fedlt").isEnabledFor(logging.WARNING))


def tell(line: str) -> None:
    """Print one line of news on standard error."""
    _error_console().print(line, markup=False, highlight=False, soft_wrap=True)


class Counter:
    """Counter of finished pieces of one long task, on standard error: a live bar, or plain lines.

    A task that is done within a second shows nothing. Used as a context manager.
    """

    def __init__(self, words: str, total: int) -> None:
        self._words, self._total, self._done = words, total, 0
        self._console = _error_console()
        self._began = time.monotonic()
        self._bar: Bar | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, pieces: int) -> None:
        """Count ``pieces`` more as done."""
        before, self._done = self._done, self._done + pieces
        passed = time.monotonic() - self._began
        if passed < 1 or self._console.quiet:
            return
        if self._console.is_terminal and not in_notebook():
            self._show()
        elif 10 * self._done // self._total > 10 * before // self._total:
            left = round_time(passed / self._done * (self._total - self._done))
            line = f"{self._words}: {self._done:,} of {self._total:,}, {left} left"
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _show(self) -> None:
        if self._bar is None:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            times = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
            self._bar = Bar(*columns, *times, console=self._console)
            self._bar.add_task(self._words, total=self._total)
            self._bar.start()
        self._bar.update(self._bar.task_ids[0], completed=self._done)


def round_time(seconds: float) -> str:
    """Return a duration as ``m:ss`` or ``h:mm:ss``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def make_progress(console: Console, label: str = "", *, every_round: bool = False) -> Progress:
    """Return a live bar for a terminal or a notebook, plain lines for any other output.

    Args:
        console: Console to write to; a quiet console gets nothing.
        label: Name of the run on the screen, such as ``seed 2``.
        every_round: True for a plain line after every round, on a terminal too.
    """
    if console.quiet:
        return Progress()
    if in_notebook():
        return NotebookProgress(label)
    if console.is_terminal and not every_round:
        return LiveProgress(console, label)
    return LineProgress(console, label, every_round=every_round)
