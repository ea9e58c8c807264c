"""Errors of user code, as one line with the place in that code."""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fedlt.errors import FedltError, RunError, one_line

CORE = Path(__file__).resolve().parents[1]
_OURS = (CORE, CORE.parent / "strategies", CORE.parent / "clients")
_TEMPLATES = CORE / "cli/templates"  # templates count as user code
_INSTALLED = tuple(
    {Path(path).resolve() for path in map(sysconfig.get_path, ("stdlib", "platstdlib", "purelib"))}
)


def raised_at(error: BaseException) -> str:
    """Return the last place in user code of an error's traceback, as ``mine.py, line 7``.

    Returns:
        "" if no user file is in the traceback.
    """
    found = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        file = frame.f_code.co_filename
        if is_outside(file):
            found = f"{Path(file).name}, line {line}"
    return found


def is_outside(file: str, ours: Sequence[Path] = _OURS) -> bool:
    """Return True if a file is user code: neither in a folder of ``ours`` nor installed.

    Code without a file is not user code; a template of ``fedlt new`` is.
    """
    if file.startswith("<"):
        return False
    above = Path(file).resolve().parents
    if any(home in above for home in ours):
        return _TEMPLATES in above
    return not any(home in above for home in _INSTALLED) and "site-packages" not in file


def described(error: BaseException) -> str:
    """Return an error of user code as one line, with the place in that code."""
    place = raised_at(error)
    return f"{one_line(error)}{f' ({place})' if place else ''}"


@contextmanager
def users_code(line: str) -> Iterator[None]:
    """Turn exceptions of user code inside the block, also ``sys.exit``, into one error line.

    Args:
        line: The purpose of the call; the reason follows in the message.

    Raises:
        FedltError: ``line``, the reason and the place. Ctrl-C passes.
    """
    try:
        yield
    except (FedltError, RunError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise FedltError(f"{line}: {described(error)}") from error
