"""Errors for the user: one line that names the mistake, its place, and the nearest valid choice."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

MOST_WORD = 100  # characters of the user's text that an error line repeats


class FedltError(ValueError):
    """A mistake in the user's input. The command line prints the error's line and exits with 2."""


class RunError(RuntimeError):
    """A run that cannot go on. The command line prints the error's line and exits with 1."""


class StoppedError(RunError):
    """A sound run that was stopped from outside; ``--resume`` continues the run."""


@contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """Turn an OSError inside the block into a one-line error that names ``path``.

    Raises:
        FedltError: If the block raises an OSError.
    """
    try:
        yield
    except OSError as error:
        raise FedltError(f"{path} cannot be written: {error.strerror}") from error


def nearest(word: str, choices: Iterable[str]) -> str:
    """Return the end of an error line about an unknown word: ``"; nearest: 'x'; known: a, b"``."""
    known = sorted(map(str, choices))
    close = difflib.get_close_matches(word[:MOST_WORD], known, n=1, cutoff=0.5)
    hint = f"; nearest: {close[0]!r}" if close else ""
    return f"{hint}; known: {', '.join(known)}"


def shortened(text: str, most: int = MOST_WORD) -> str:
    """Return a user's text, cut to at most ``most`` characters; a cut text ends with ``...``."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def one_line(error: BaseException) -> str:
    """Return an error as one line: fedlt's errors whole, other errors up to 300 characters.

    The line begins with the error's type, unless the error is a ValueError or fedlt's own.
    """
    if isinstance(error, (FedltError, RunError)):
        return str(error)
    if isinstance(error, SystemExit):
        return f"the code ends the process: sys.exit({error.code!r})"
    if isinstance(error, FileNotFoundError) and isinstance(error.filename, str):
        return f"no file {str(Path(error.filename).absolute())!r}"
    try:
        text = " ".join(str(error).split())[:300]
    except Exception:  # a user's error class may fail to make its text
        text = ""
    if not text:
        return type(error).__name__
    return text if isinstance(error, ValueError) else f"{type(error).__name__}: {text}"
