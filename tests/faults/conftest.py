"""Runs of the ``fedlt`` command in processes of their own, and a look at those processes."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

EXPERIMENT = """
name: here
rounds: 100000
clients_per_round: 3
data:
  dataset: synthetic
  options: {num_classes: 4, train_per_class: 20, test_per_class: 5}
partition: {num_clients: 5}
model: {width: 4}
checkpoint: {every: 2}
"""
PATIENCE = 120  # seconds on a loaded machine


@pytest.fixture(autouse=True)
def _ctrl_c() -> Iterator[None]:
    """Take Ctrl-C as a terminal's process does; one that a shell put behind ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def wait_for(what: Callable[[], object], seconds: float = PATIENCE) -> float:
    """Wait until ``what()`` is true and return for how long."""
    start = time.monotonic()
    while not what():
        assert time.monotonic() - start < seconds, f"{what} did not come true"
        time.sleep(0.05)
    return time.monotonic() - start


def born(pid: int) -> str | None:
    """Return when a process was started, which with its id names it; None if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


@dataclass(frozen=True)
class Process:
    """One process, by a name that no later one has."""

    pid: int
    birth: str
    command: str

    @property
    def head(self) -> str:
        """The first words: a raylet names workers and agents, too, among its many arguments."""
        return " ".join(self.command.split()[:3])

    @property
    def is_worker(self) -> bool:
        """True for a worker of Ray: Ray gives most of them a title, but not all."""
        return re.search(r"ray::(IDLE|RayWorker)|/default_worker\.py", self.head) is not None

    def is_up(self) -> bool:
        """Return True if the process is a worker that has mapped its driver's memory."""
        try:
            maps = Path(f"/proc/{self.pid}/maps").read_text()
        except OSError:
            return False
        return self.is_worker and "memfd:fedlt" in maps

    def is_alive(self) -> bool:
        return born(self.pid) == self.birth

    def sockets(self) -> set[str]:
        """Return the inodes of its sockets."""
        found = set()
        try:
            for path in Path(f"/proc/{self.pid}/fd").iterdir():
                match = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(path))
                found |= {match[1]} if match else set()
        except OSError:
            pass  # a descriptor, or the process, has gone meanwhile
        return found


def family(pid: int) -> list[Process]:
    """Return a process and everything that it, and they, have started."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found, todo = [], [pid]
    while todo:
        one = todo.pop()
        todo += children.get(one, [])
        birth = born(one)
        with suppress(OSError):  # it has ended a moment ago
            command = Path(f"/proc/{one}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            if birth is not None:
                found.append(Process(one, birth, command))
    return found


def listening() -> dict[str, str]:
    """Return the address, in hexadecimal, of every TCP socket that listens, by its inode."""
    found = {}
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":  # TCP_LISTEN
                found[fields[9]] = fields[1].partition(":")[0]
    return found


class Running:
    """A ``fedlt run`` on its way."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.temporary = Path(tempfile.mkdtemp(dir="/tmp"))  # Ray's sockets need short names
        (folder / "here.yaml").write_text(EXPERIMENT)
        self.seen: list[Process] = []
        self._on_ray = any("name: ray" in argument for argument in arguments)
        self.directory = folder / "runs" / "here" / "1"
        fedlt = str(Path(sys.executable).parent / "fedlt")
        # As from a terminal, where Ctrl-C counts; a test run in the background ignores it.
        command = ["env", "--default-signal=INT", fedlt, "run", "here.yaml", *arguments]
        self.popen = subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | {"TMPDIR": str(self.temporary), "PYTHONFAULTHANDLER": "1"},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # as a terminal does
        )

    def rounds(self) -> int:
        """Return how many rounds it has written."""
        try:
            return (self.directory / "rounds.jsonl").read_bytes().count(b"\n")
        except OSError:
            return 0

    def processes(self) -> list[Process]:
        """Return the run's process and all that it has started."""
        return family(self.popen.pid)

    def reach(self, rounds: int, *, workers: bool = True) -> list[Process]:
        """Wait for a round, on Ray also for a worker, and return the processes at work.

        Without ``workers`` Ray may still be starting, while the driver does the first rounds.
        """
        self._wait(lambda: self.rounds() >= rounds)
        if workers and self._on_ray:
            self._wait(lambda: any(one.is_up() for one in self.processes()))
            later = self.rounds() + 2
            self._wait(lambda: self.rounds() >= later)
        self.seen = self.processes()
        return self.seen

    def _wait(self, ready: Callable[[], bool]) -> None:
        try:
            wait_for(lambda: ready() or self.popen.poll() is not None)
        except AssertionError:
            others = [process.pid for process in self.processes()[1:]]
            self.popen.send_signal(signal.SIGABRT)  # Python prints where its threads stand
            for pid in others:  # which hold the pipe open
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.popen.wait(PATIENCE)
        assert self.popen.poll() is None, self.popen.stderr.read()

    def signal(self, number: int, *, group: bool) -> None:
        """Send a signal, to the whole group as a terminal does for Ctrl-C, or to the driver."""
        (os.killpg if group else os.kill)(self.popen.pid, number)

    def end(self) -> tuple[int, str, float]:
        """Wait for the end; return exit code, standard error, and the seconds it took."""
        start = time.monotonic()
        _, error = self.popen.communicate(timeout=PATIENCE)
        return self.popen.returncode, error, time.monotonic() - start


@pytest.fixture
def fedlt_run(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Return what starts a run; nothing of it survives the test."""
    started: list[Running] = []

    def start(*arguments: str) -> Running:
        started.append(Running(tmp_path, *arguments))
        return started[-1]

    yield start
    for one in started:
        for process in {*one.seen, *one.processes()}:
            if process.is_alive():
                os.kill(process.pid, signal.SIGKILL)
        one.popen.communicate(timeout=PATIENCE)
        shutil.rmtree(one.temporary)


@pytest.fixture
def wait() -> Callable[..., float]:
    """Return what waits for a condition."""
    return wait_for


@pytest.fixture(name="listening")
def _listening() -> Callable[[], dict[str, str]]:
    """Return what finds the listening sockets of this machine."""
    return listening
