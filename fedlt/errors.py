"""Errors for the user to mend: one line with what, where, and the nearest valid choice."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["FedltError", "RunError", "StoppedError", "nearest", "one_line"]


class FedltError(ValueError):
    """A mistake in what the user gave. The command line prints its one line and exits with 2."""


class RunError(RuntimeError):
    """A run that cannot go on. The command line prints its one line and exits with 1."""


class StoppedError(RunError):
    """A run that something outside has stopped: nothing is wrong with it, ``--resume`` goes on."""


def nearest(word: str, choices: Iterable[str]) -> str:
    """Return ``"; nearest: 'x'; known: a, b"`` for an unknown ``word``, to end an error line."""
    known = sorted(map(str, choices))
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    hint = f"; nearest: {close[0]!r}" if close else ""
    return f"{hint}; known: {', '.join(known)}"


def one_line(error: BaseException) -> str:
    """Return an error of a user's code as one line; a ValueError speaks for itself."""
    text = " ".join(str(error).split())[:300]
    return text if isinstance(error, ValueError) else f"{type(error).__name__}: {text}"
