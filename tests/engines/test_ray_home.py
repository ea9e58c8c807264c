"""The folder of a local Ray: short paths, an owner, and what dead processes have left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from fedlt.engines.ray_home import PREFIX, SOCKET_BYTES, make_home, remove_dead
from fedlt.errors import FedltError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

OWNER = """
import subprocess
import sys

from fedlt.engines.ray_home import make_home

home = make_home()
log = (home.path / "a.log").open("w")
left = subprocess.Popen(["sleep", "600"], stdout=log)  # as an agent, which outlives its driver
print(home.path, left.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def base(tmp_path, monkeypatch):
    """Return an empty temporary folder; no socket is made, so its length does not matter."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("fedlt.engines.ray_home.SOCKET_BYTES", SOCKET_BYTES + 100)
    return tmp_path


@pytest.fixture
def owner():
    """Return what starts a process with a folder of its own: process, folder, what it started."""
    started = []

    def start(base):
        process = subprocess.Popen(
            [sys.executable, "-c", OWNER],
            env=os.environ | {"TMPDIR": str(base)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        path, left = process.stdout.readline().split()
        started.append((process, int(left)))
        return process, path, int(left)

    yield start
    for process, left in started:
        process.kill()
        process.communicate()
        if is_there(left):
            os.kill(left, signal.SIGKILL)


def is_there(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_home_is_a_folder_with_an_owner(base):
    home = make_home()
    assert home.path.parent == base
    assert (home.path / "owner").read_text().split()[0] == str(os.getpid())
    other = make_home()  # of the same process, which lives
    assert other.path != home.path
    assert home.path.exists()
    other.close(keep=False)
    assert os.listdir(base) == [home.path.name]
    home.close(keep=True)
    assert home.path.exists()


def test_a_long_temporary_folder_is_passed_over(tmp_path, monkeypatch):
    """AF_UNIX holds 107 bytes, Ray's session and socket take 66: 90 more are too long."""
    long = tmp_path / ("x" * 90)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    home = make_home()
    try:
        session = f"{home.path}/session_2026-01-01_00-00-00_000000_{os.getpid()}"
        assert len(f"{session}/sockets/plasma_store") <= 107
    finally:
        home.close(keep=False)


def test_nowhere_to_go_is_one_line_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr("fedlt.engines.ray_home.SOCKET_BYTES", 70)
    with pytest.raises(FedltError, match=r"sockets need a writable folder .* set TMPDIR to one"):
        make_home()


def test_what_a_dead_process_has_left_goes_with_the_next_start(base, owner):
    process, path, left = owner("/tmp")
    try:
        remove_dead(type(base)("/tmp"))
        assert os.path.exists(path)  # its process lives
        assert is_there(left)
        process.kill()
        process.wait()
        assert is_there(left)
        remove_dead(type(base)("/tmp"))
        assert not os.path.exists(path)
        deadline = time.monotonic() + 10
        while is_there(left) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not is_there(left)
    finally:
        process.kill()


def test_what_is_not_ours_or_not_dead_stays(base):
    foreign = [base / "session_1", base / f"{PREFIX}1-0", base / "ray"]
    for path in foreign:
        path.mkdir()  # without an owner file
    young = base / f"{PREFIX}2-0"
    young.mkdir()
    (young / "owner").touch()  # its process is about to lock it
    reused = base / f"{PREFIX}{os.getpid()}-7"
    reused.mkdir()
    (reused / "owner").write_text(f"{os.getpid()} 1\n")  # an earlier process of this id
    remove_dead(base)
    assert sorted(os.listdir(base)) == sorted(path.name for path in [*foreign, young])
