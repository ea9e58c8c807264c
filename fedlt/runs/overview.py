"""States of all runs below a folder, for ``fedlt status``; nothing is written, no code executed."""

from __future__ import annotations

import fcntl
import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fedlt.errors import FedltError
from fedlt.runs.directory import OutdatedError, RunDirectory
from fedlt.runs.files import CONFIG, is_run
from fedlt.runs.kept import is_kept, read_kept

if TYPE_CHECKING:
    from fedlt.config import Config

FoundState = Literal["finished", "kept", "running", "unfinished", "outdated", "damaged"]
_ROUND = re.compile(r"round_(\d{6,})")


@dataclass(frozen=True)
class RunStatus:
    """State of a run directory."""

    path: Path
    state: FoundState
    round: int | None = None  # last round that is saved; None if unknown
    rounds: int | None = None  # of the configuration; None if unknown
    seconds: float | None = None  # of a finished run
    command: str = ""  # that goes on with an unfinished run
    reason: str = ""  # why a run cannot be read


def overview(folder: Path) -> Iterator[RunStatus]:
    """Yield the state of every run below ``folder``, in alphabetical order.

    Raises:
        FedltError: If ``folder`` is no folder.
    """
    if not folder.is_dir():
        raise FedltError(f"{folder} is not a folder; runs lie in the folder 'output' of their file")
    for path in run_folders(folder):
        yield status_of(path)


def run_folders(folder: Path) -> Iterator[Path]:
    """Yield all run directories below a folder, or the folder itself if it is one."""
    for name, below, _ in os.walk(folder):
        path = Path(name)
        if is_run(path):
            below.clear()
            yield path
        below[:] = sorted(one for one in below if not one.startswith("."))


def status_of(path: Path) -> RunStatus:
    """Return the state of the run directory ``path``."""
    directory = RunDirectory(path)
    saved = last_saved(directory.checkpoints)
    try:
        if is_kept(path):
            kept = read_kept(path)
            return RunStatus(path, "kept", kept["rounds"], kept["rounds"], kept["seconds"])
        directory.recorded()
        config = directory.config()
        if directory.state == "finished":
            seconds = float(directory.result()["seconds"])
            directory.rounds()  # its digest
            return RunStatus(path, "finished", config.rounds, config.rounds, seconds)
    except OutdatedError as error:
        return RunStatus(path, "outdated", saved, reason=str(error))
    except FedltError as error:
        return RunStatus(path, "damaged", saved, reason=str(error))
    if is_locked(path / CONFIG):
        return RunStatus(path, "running", saved, config.rounds)
    return RunStatus(path, "unfinished", saved, config.rounds, command=_command(path, config))


def last_saved(checkpoints: Path) -> int:
    """Return the round of the newest checkpoint, by its name; 0 without a checkpoint."""
    names = [one.name for one in checkpoints.iterdir()] if checkpoints.is_dir() else []
    return max((int(found[1]) for name in names if (found := _ROUND.fullmatch(name))), default=0)


def is_locked(path: Path) -> bool:
    """Return True if another process holds the lock on a file that can be read."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _command(path: Path, config: Config) -> str:
    """Return the command that goes on with the run at ``path``; "" if its folder was renamed."""
    folder, given = path.absolute(), []
    if RunDirectory.of(config).path != folder:  # it was moved since the run began
        given = [f"output={folder.parents[1]}", f"name={folder.parent.name}"]
    if folder.name != str(config.seed):
        return ""
    return shlex.join(["fedlt", "run", str(path / CONFIG), *given, "--resume"])
