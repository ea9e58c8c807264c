"""Folder of a process's local Ray, which names its owner process and is removed with it.

    <temporary folder>/fedlt-ray-<pid>-<number>/    owner     the process's id and its start, locked
                                                    session_* of Ray: its sockets and logs

The owner's lock ends with its process, also after a crash. The next start finds folders of dead
processes, ends the remaining processes of their Ray, and removes the folders. Folders without an
owner file, locked folders, and every other Ray stay as they are.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from fedlt.errors import FedltError

PREFIX = "fedlt-ray-"
SOCKET_BYTES = 107  # of a Unix socket's path, by the kernel
SESSION = "/session_2026-01-01_00-00-00_000000_/sockets/plasma_store"  # and the process's id
YOUNG = 5.0  # seconds in which an owner file may still lack a lock


@dataclass
class RayHome:
    """Folder of this process's Ray."""

    path: Path
    owner: BinaryIO  # locked as long as this process lives

    def close(self, *, keep: bool) -> None:
        """Unlock the folder, and remove the folder unless ``keep`` is set, for its logs."""
        if not keep:
            shutil.rmtree(self.path, ignore_errors=True)
        self.owner.close()


def make_home() -> RayHome:
    """Return a new folder for this process, after removing the folders of dead processes.

    The folder lies in the temporary folder, or in ``/tmp`` if that path is too long for sockets.

    Raises:
        FedltError: If no folder with a short path can be written.
    """
    tried = list(dict.fromkeys((tempfile.gettempdir(), "/tmp", "/var/tmp")))
    room = SOCKET_BYTES - len(f"{SESSION}{os.getpid()}/{PREFIX}{os.getpid()}-0")
    for base in map(Path, tried):
        if len(os.fsencode(base)) > room or not os.access(base, os.W_OK | os.X_OK):
            continue
        remove_dead(base)
        for number in itertools.count():
            path = base / f"{PREFIX}{os.getpid()}-{number}"
            with suppress(FileExistsError):
                path.mkdir(mode=0o700)
                return _claim(path)
    raise FedltError(
        f"engine: Ray's sockets need a writable folder with a path of at most {room} characters; "
        f"tried {', '.join(tried)}; set TMPDIR to one"
    )


def _claim(path: Path) -> RayHome:
    owner = (path / "owner").open("w+b")
    fcntl.flock(owner, fcntl.LOCK_EX)
    owner.write(f"{os.getpid()} {_start_of(os.getpid())}\n".encode())
    owner.flush()
    return RayHome(path, owner)


def remove_dead(base: Path) -> None:
    """Remove folders under ``base`` whose process has ended; end the rest of its Ray."""
    for path in base.glob(f"{PREFIX}*"):
        with suppress(OSError), (path / "owner").open("r+b") as owner:
            if path.stat().st_uid == os.getuid() and _is_dead(owner):
                end_processes(path)
                shutil.rmtree(path, ignore_errors=True)


def _is_dead(owner: BinaryIO) -> bool:
    """Return True if the process that wrote an owner file has ended."""
    try:
        fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False  # the process lives
    words = owner.read().split()
    if len(words) != 2:  # the process may be about to lock the file
        return time.time() - os.fstat(owner.fileno()).st_mtime > YOUNG
    return words[1] == b"-" or _start_of(int(words[0])) != words[1].decode()


def _start_of(pid: int) -> str:
    """Return a process's start time, which with its id identifies a process; ``-`` if unknown."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "-"
    fields = text.rpartition(")")[2].split()
    return "gone" if fields[0] == "Z" else fields[19]


def children_of(pid: int) -> list[int]:
    """Return the ids of a process's running children; empty without /proc."""
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):  # of each of its threads
        with suppress(OSError):
            found += map(int, path.read_text(encoding="ascii").split())
    return found


def command_of(pid: int) -> bytes:
    """Return the command line of a process, words ended by zero bytes; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def end_processes(folder: Path) -> None:
    """Kill this user's processes of the Ray in ``folder``, as far as /proc lists them."""
    for pid in _processes_of(folder):
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def _processes_of(folder: Path) -> Iterator[int]:
    """Yield the other processes that name the folder or have opened a file in the folder."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            pid = int(process.name)
            if pid == os.getpid() or process.stat().st_uid != os.getuid():
                continue
            is_named = os.fsencode(f"{folder}/") in command_of(pid)
            if is_named or _has_opened(process, folder):
                yield pid


def _has_opened(process: Path, folder: Path) -> bool:
    for link in (process / "fd").iterdir():
        with suppress(OSError):
            if os.readlink(link).startswith(f"{folder}/"):
                return True
    return False
