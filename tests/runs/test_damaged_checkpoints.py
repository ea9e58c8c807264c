"""Runs whose checkpoints were damaged: the one before and the same end, or one line and code 2."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fedlt.errors import FedltError
from fedlt.runs.checkpoints import state_folder
from fedlt.runs.directory import RunDirectory
from fedlt.simulate import run

FEDLOGE = {"strategy": "fedloge", "rounds": 4, "clients_per_round": 3}


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def remove(path):
    path.unlink()


def newest_state_file(directory, round):
    return state_folder(directory.checkpoints) / f"round_{round:06d}.0.safetensors"


@pytest.fixture
def stopped(lab):
    """A FedLoGe run that ended hard in round 3, with checkpoints of rounds 2 and 3."""
    config = lab.stopped(3, **FEDLOGE)
    directory = RunDirectory.of(config)
    found = sorted(path.name for path in directory.checkpoints.glob("round_*"))
    assert found == ["round_000002", "round_000003"]
    return config, directory


@pytest.mark.parametrize("damage", [cut, flip, remove])
@pytest.mark.parametrize("what", ["tensors.safetensors", "checkpoint.json", "personal"])
def test_the_run_goes_on_from_the_one_before_to_the_same_end(
    lab, reference, stopped, damage, what, caplog
):
    config, directory = stopped
    newest = directory.checkpoints / "round_000003"
    damage(newest_state_file(directory, 3) if what == "personal" else newest / what)
    outcome = lab.resume(config)
    assert "round_000003 cannot be used" in caplog.text
    assert "going on from round 2" in caplog.text
    assert outcome.bits == reference(**FEDLOGE).bits
    assert [row["round"] for row in outcome.rows] == [1, 2, 3, 4]


def test_what_a_killed_run_left_half_written_is_cleaned_and_never_loaded(lab, reference, stopped):
    """Copies of round 3 under the names of round 9, as writing would have left them."""
    config, directory = stopped
    half = directory.checkpoints / ".round_000009.4711"
    half.mkdir()
    for path in (directory.checkpoints / "round_000003").iterdir():
        (half / path.name).write_bytes(path.read_bytes())
    state = state_folder(directory.checkpoints) / ".round_000009.0.safetensors.4711"
    state.write_bytes(newest_state_file(directory, 3).read_bytes())
    outcome = lab.resume(config)
    assert outcome.bits == reference(**FEDLOGE).bits
    assert not half.exists()
    assert not state.exists()


def test_nothing_to_load_is_one_line_and_nothing_changes(stopped):
    config, directory = stopped
    flip(newest_state_file(directory, 3))
    flip(directory.checkpoints / "round_000002" / "tensors.safetensors")
    before = {p: p.read_bytes() for p in directory.path.rglob("*") if p.is_file()}
    with pytest.raises(FedltError, match="no checkpoint can be used") as caught:
        run(config, resume=True)
    line = str(caught.value)
    assert "\n" not in line
    assert "round_000003.0.safetensors does not match its checksum" in line
    assert "round_000002" in line
    assert "put back a copy of it" in line
    assert "--overwrite" not in line
    assert {p: p.read_bytes() for p in directory.path.rglob("*") if p.is_file()} == before


@pytest.mark.slow
def test_the_screen_shows_the_warning_and_the_exit_code(stopped):
    """The command itself: code 2 while both are damaged, a warning once one can be read."""
    _, directory = stopped
    file = directory.path / "config.yaml"
    command = [sys.executable, "-m", "fedlt", "run", str(file), "--resume"]
    tensors = [directory.checkpoints / f"round_00000{n}" / "tensors.safetensors" for n in (2, 3)]
    for path in tensors:
        flip(path)
    failed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert failed.returncode == 2
    assert failed.stderr.splitlines()[-1].startswith("error: no checkpoint can be used: ")
    assert "Traceback" not in failed.stderr
    flip(tensors[0])
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "round_000003 cannot be used" in done.stderr
    assert "going on from round 2" in done.stderr
