"""Output of a command: results on standard output, progress and notes on standard error.

With ``--json`` standard output gets one JSON document, at the end and nothing else: whatever else
is printed there meanwhile, by user code too, goes to standard error. ``--quiet`` leaves progress
and notes out. Errors, and the lines that name executed code, are always on standard error.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from fedlt.errors import FedltError, RunError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_LOGGERS = ("fedlt", "strategies", "clients")


@dataclass
class Screen:
    """Screen of a command, by the options of its command line."""

    json: bool = False
    quiet: bool = False
    verbose: bool = False
    content: Mapping[str, Any] | None = field(default=None, init=False)  # of the JSON document

    def show(self, table: RenderableType, *, whole: bool = False) -> None:
        """Print a table of results, or a text with colours; a ``whole`` line is never broken."""
        if not self.json:
            from rich.console import Console

            Console().print(table, soft_wrap=whole)

    def tell(self, *lines: object) -> None:
        """Print lines of results, whole and without markup."""
        for line in () if self.json else lines:
            click.echo(str(line))

    def note(self, *lines: str) -> None:
        """Print lines that are no results on standard error."""
        for line in () if self.quiet else lines:
            click.echo(line, err=True)

    def document(self, content: Mapping[str, Any]) -> None:
        """Set the content of the JSON document.

        Args:
            content: Values for JSON. NumPy values are allowed, non-finite numbers become null, and
                a value that JSON does not know becomes text.
        """
        self.content = content

    def progress(self) -> Console:
        """Return the console for progress, which is standard error."""
        from rich.console import Console

        return Console(stderr=True, quiet=self.quiet)


_screens: list[Screen] = []  # of the running command; the last one is in force


def screen() -> Screen:
    """Return the screen of the running command."""
    return _screens[-1] if _screens else Screen()


@contextmanager
def on_screen(found: Screen) -> Iterator[None]:
    """Let the block print to a screen, then print the JSON document that the block has set.

    Raises:
        FedltError: If the options contradict each other.
    """
    if found.quiet and found.verbose:
        raise FedltError("give --quiet or --verbose, not both")
    _screens.append(found)
    level = logging.ERROR if found.quiet else logging.INFO if found.verbose else logging.WARNING
    try:
        with _logging_from(level), _diverted() if found.json else nullcontext():
            yield
    except (FedltError, RunError):
        if found.verbose:
            traceback.print_exc()
        raise
    finally:
        _screens.pop()
        if found.json and found.content is not None:
            click.echo(_as_json(found.content))


def _as_json(content: Mapping[str, Any]) -> str:
    from fedlt.runs.files import plain

    return json.dumps(plain(content), indent=2, allow_nan=False, ensure_ascii=False, default=str)


@contextmanager
def _logging_from(level: int) -> Iterator[None]:
    """Print log lines of fedlt from a level on."""
    loggers: Sequence[logging.Logger] = [logging.getLogger(name) for name in _LOGGERS]
    before = [logger.level for logger in loggers]
    handler = logging.StreamHandler()
    for logger in loggers:
        logger.setLevel(level)
        if level < logging.WARNING:  # Python prints the others by itself
            logger.addHandler(handler)
    try:
        yield
    finally:
        for logger, old in zip(loggers, before, strict=True):
            logger.setLevel(old)
            logger.removeHandler(handler)


@contextmanager
def _diverted() -> Iterator[None]:
    """Send to standard error what this process, and processes that it starts, print meanwhile."""
    stdout, kept = sys.stdout, None
    with suppress(OSError, ValueError):
        stdout.flush()
        kept = os.dup(1)
        os.dup2(2, 1)
    sys.stdout = sys.stderr
    try:
        yield
    finally:
        sys.stdout = stdout
        if kept is not None:
            os.dup2(kept, 1)
            os.close(kept)
