"""Full and read-only disks, and two processes at one run: one clear line, and nothing lost."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from fedlt.config import load_config
from fedlt.errors import FedltError, RunError
from fedlt.progress import Progress
from fedlt.runs.checkpoints import load_checkpoint
from fedlt.runs.claims import claimed
from fedlt.runs.creation import create_run
from fedlt.runs.directory import RunDirectory
from fedlt.simulate import run


class Disk:
    """Refuses to sync what is written under a folder, from a given write on."""

    def __init__(self, monkeypatch, number: int) -> None:
        self.left, self.number, self._fsync = None, number, os.fsync
        monkeypatch.setattr(os, "fsync", self._sync)

    def _sync(self, file: int) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise OSError(self.number, os.strerror(self.number))
        self._fsync(file)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
@pytest.mark.parametrize("writes", range(8))
def test_a_disk_that_fills_up_ends_the_run_in_one_line(lab, reference, monkeypatch, number, writes):
    """After the first round it takes ``writes`` more: in an evaluation, a row, a checkpoint."""
    disk = Disk(monkeypatch, number)

    class Fill(Progress):
        def advance(self, round, text=""):
            if round == 1:
                disk.left = writes

    config = lab.fresh(strategy="fedloge")
    with pytest.raises(
        RunError, match=f"cannot be written: {os.strerror(number)}; resume goes"
    ) as no:
        run(config, progress=Fill())
    assert "\n" not in str(no.value)
    directory = RunDirectory.of(config)
    assert directory.state == "unfinished"
    disk.left = None
    assert load_checkpoint(directory.checkpoints).round >= 1
    assert lab.resume(config).bits == reference(strategy="fedloge").bits


def test_a_disk_that_is_full_from_the_start_leaves_nothing(lab, monkeypatch):
    disk = Disk(monkeypatch, errno.ENOSPC)
    disk.left = 0
    config = lab.fresh()
    with pytest.raises(FedltError, match="cannot be made: No space left on device"):
        run(config)
    assert list(RunDirectory.of(config).path.parent.iterdir()) == []


def test_a_run_directory_that_is_read_only_is_refused(lab, monkeypatch):
    """Root may write where the mode says otherwise, so opening a file is what fails here."""
    config = lab.stopped(1)
    place = Path.open

    def locked(self, mode="r", *arguments, **more):
        if self.name == "config.yaml" and mode not in ("r", "rb"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))
        return place(self, mode, *arguments, **more)

    monkeypatch.setattr(Path, "open", locked)
    with pytest.raises(FedltError, match=r"config\.yaml cannot be written: Read-only file system"):
        run(config, resume=True)


# ---- two processes


HOLDER = """
import fcntl
import sys

file = open(sys.argv[1], "r+b")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder():
    """Return what lets another process hold the lock of a run."""
    started = []

    def hold(config):
        path = RunDirectory.of(config).path / "config.yaml"
        other = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        started.append(other)
        assert other.stdout.readline() == b"held\n"
        return other

    yield hold
    for other in started:
        other.kill()
        other.communicate()


@pytest.mark.parametrize("how", [{}, {"resume": True}, {"overwrite": True}], ids=str)
def test_a_run_at_work_is_refused_and_left_alone(lab, holder, how):
    config = lab.stopped(1)
    before = {path: path.stat().st_mtime_ns for path in RunDirectory.of(config).path.rglob("*")}
    holder(config)
    with pytest.raises(FedltError, match="is in use: another process runs it"):
        run(config, **how)
    assert before == {p: p.stat().st_mtime_ns for p in RunDirectory.of(config).path.rglob("*")}


def test_a_killed_process_lets_go(lab, reference, holder):
    config = lab.stopped(1)
    other = holder(config)
    other.kill()
    other.wait()
    assert lab.resume(config).bits == reference().bits


def test_a_run_holds_its_lock_and_a_finished_one_does_not(lab):
    taken = []

    class Look(Progress):
        def advance(self, round, text=""):
            with (directory.path / "config.yaml").open("rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    taken.append(round)

    config = lab.fresh()
    directory = RunDirectory.of(config)
    run(config, progress=Look())
    assert taken == [1, 2, 3]
    with directory.lock():
        assert load_config(directory.path / "config.yaml").rounds == 3
    assert run(config)["status"] == "finished"  # a finished run is shown, whoever looks at it


CLAIMER = """
import sys
from contextlib import nullcontext
from pathlib import Path

from fedlt.runs.claims import claimed

with claimed(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="names that the kernel keeps")
@pytest.mark.parametrize("how", [{}, {"overwrite": True}], ids=str)
@pytest.mark.parametrize("begun", [False, True])
def test_of_two_that_start_at_once_the_second_is_told(lab, reference, how, begun):
    """The first one still prepares, with no folder or beside an old run: it is left alone."""
    config = lab.stopped(1) if begun else lab.fresh()
    directory = RunDirectory.of(config)
    other = subprocess.Popen(
        [sys.executable, "-c", CLAIMER, str(directory.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert other.stdout.readline() == b"held\n"
    before = sorted(lab.output.rglob("*"))
    with pytest.raises(FedltError, match="is in use: another process runs it"):
        run(config, **(how if how or not begun else {"resume": True}))
    assert sorted(lab.output.rglob("*")) == before
    other.kill()  # the claim goes with the process
    other.communicate()
    assert run(config, **(how if how or not begun else {"resume": True}))["status"] == "finished"
    assert lab.resume(config).bits == reference().bits


def test_a_claim_is_given_back_and_is_for_one_run(lab):
    first, second = lab.fresh(), lab.fresh()
    with claimed(RunDirectory.of(first).path):
        assert run(second)["status"] == "finished"
        with pytest.raises(FedltError, match="is in use"):
            run(first)
    assert run(first)["status"] == "finished"


def test_who_comes_to_write_too_late_is_refused(lab, monkeypatch):
    """Two that do not see each other's claims, on two machines: the second finds a folder."""
    config = lab.fresh()
    directory = RunDirectory.of(config)

    def late(*arguments, **more):
        monkeypatch.setattr("fedlt.simulate.create_run", create_run)
        run(config)  # the other one, which is done by now
        create_run(*arguments, **more)

    monkeypatch.setattr("fedlt.simulate.create_run", late)
    monkeypatch.setattr("fedlt.simulate.claimed", lambda path: nullcontext())
    with pytest.raises(FedltError, match="is in use: another process has made it meanwhile"):
        run(config)
    assert directory.state == "finished"
