"""Error lines of a run that ended early: the cause, and the round where ``--resume`` goes on."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from fedlt.errors import FedltError, RunError, one_line
from fedlt.runs.checkpoints import load_checkpoint
from fedlt.runs.directory import RunDirectory

if TYPE_CHECKING:
    from fedlt.config import Config

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO)


@contextmanager
def explained(directory: RunDirectory) -> Iterator[None]:
    """Turn an exception of a method in the middle of a run into one line; keep the traceback.

    Raises:
        RunError: In place of an exception of the block that is not an error of fedlt.
    """
    try:
        yield
    except (FedltError, RunError):
        raise
    except (Exception, SystemExit) as error:
        cause = getattr(error, "cause", None) or error  # Ray wraps what a worker raised
        where = "".join(f"{note}: " for note in dict.fromkeys(getattr(cause, "__notes__", ())))
        if isinstance(error, OSError) and error.errno in _DISK and not where:
            reason = f"{directory.path} cannot be written: {error.strerror}"
            raise RunError(f"{reason}; resume goes on from its last checkpoint") from error
        path = directory.path / "error.txt"
        line = f"{where}{one_line(cause)}"
        with suppress(OSError):
            path.write_text(traceback.format_exc(), encoding="utf-8")
            line = f"{line}; the traceback is in {path}"
        raise RunError(line) from error


def going_on(directory: RunDirectory) -> str:
    """Return words for the round where ``--resume`` goes on, such as "to go on after round 12"."""
    try:
        found = load_checkpoint(directory.checkpoints)
    except FedltError:
        return "to go on"
    if found is None:
        return "to go on from the start"
    if found.meta["due"] is not None:
        return f"to go on with the evaluation of round {found.round}"
    return f"to go on after round {found.round}"


def first_unfinished(config: Config | None) -> str:
    """Return words for the round where the first unfinished run of a configuration goes on.

    Args:
        config: The runs, one per seed; None: the configuration has not been read yet.
    """
    for one in () if config is None else config.runs():
        directory = RunDirectory.of(one)
        if directory.state != "finished":
            return going_on(directory)
    return "to go on"
