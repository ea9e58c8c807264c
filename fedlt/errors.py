"""Errors for the user to mend: one line with what, where, and the nearest valid choice."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

MOST_WORD = 100  # characters of what a user gave that an error line repeats


class FedltError(ValueError):
    """A mistake in what the user gave. The command line prints its one line and exits with 2."""


class RunError(RuntimeError):
    """A run that cannot go on. The command line prints its one line and exits with 1."""


class StoppedError(RunError):
    """A run that something outside has stopped: nothing is wrong with it, ``--resume`` goes on."""


@contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """Turn a disk's error inside the block into one line that names ``path``.

    Raises:
        FedltError: If the block raises an OSError.
    """
    try:
        yield
    except OSError as error:
        raise FedltError(f"{path} cannot be written: {error.strerror}") from error


def nearest(word: str, choices: Iterable[str]) -> str:
    """Return ``"; nearest: 'x'; known: a, b"`` for an unknown ``word``, to end an error line."""
    known = sorted(map(str, choices))
    close = difflib.get_close_matches(word[:MOST_WORD], known, n=1, cutoff=0.5)
    hint = f"; nearest: {close[0]!r}" if close else ""
    return f"{hint}; known: {', '.join(known)}"


def shortened(text: str, most: int = MOST_WORD) -> str:
    """Return a text that a user gave, cut where a line would be all of it."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def one_line(error: BaseException) -> str:
    """Return an error as one line: fedlt's own whole, of a user's code the first 300 characters.

    A ValueError speaks for itself; of other errors the type comes first.
    """
    if isinstance(error, (FedltError, RunError)):
        return str(error)
    if isinstance(error, SystemExit):
        return f"the code ends the process: sys.exit({error.code!r})"
    if isinstance(error, FileNotFoundError) and isinstance(error.filename, str):
        return f"no file {str(Path(error.filename).absolute())!r}"
    try:
        text = " ".join(str(error).split())[:300]
    except Exception:  # an error of a user's own whose text fails, too
        text = ""
    if not text:
        return type(error).__name__
    return text if isinstance(error, ValueError) else f"{type(error).__name__}: {text}"
