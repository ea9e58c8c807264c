"""States of runs in a folder: finished, running, unfinished and how to go on, damaged."""

from __future__ import annotations

import fcntl
import json
import shlex
import shutil
from pathlib import Path

import pytest

from fedlt.cli import main
from fedlt.errors import FedltError
from fedlt.runs import directory as directories
from fedlt.runs.overview import last_saved, overview


@pytest.fixture(scope="module")
def made(lab_factory):
    """A finished run and one that was stopped after round 1 of 3, in one folder."""
    lab = lab_factory("overview")
    lab.run(name="done")
    lab.stopped(1, name="left")
    return lab.output


@pytest.fixture
def folder(made, tmp_path, monkeypatch):
    """A copy of that folder at the same depth, which a test may damage."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made, tmp_path / "runs")
    return Path("runs")


def states(folder: Path) -> dict[str, str]:
    return {one.path.parent.name: one.state for one in overview(folder)}


def test_finished_and_unfinished(made):
    done, left = overview(made)
    assert (done.state, done.round, done.rounds, done.command) == ("finished", 3, 3, "")
    assert done.seconds > 0
    assert (left.state, left.round, left.rounds) == ("unfinished", 1, 3)
    assert left.command == f"fedlt run {made}/left/1/config.yaml --resume"
    assert left.seconds is None


def test_the_command_goes_on_also_after_a_move(folder, capsys):
    *_, left = overview(folder)
    assert f"output={Path.cwd()}/runs" in left.command
    program, *arguments = shlex.split(left.command)
    assert program == "fedlt"
    assert main(arguments) == 0
    assert "going on after round 1 of 3" in capsys.readouterr().err
    assert states(folder) == {"done": "finished", "left": "finished"}


def test_a_renamed_seed_has_no_command(folder):
    (folder / "left/1").rename(folder / "left/kept")
    *_, left = overview(folder)
    assert (left.state, left.command) == ("unfinished", "")


def test_a_locked_run_is_running_and_looking_takes_no_lock(folder):
    with (folder / "left/1/config.yaml").open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert states(folder) == {"done": "finished", "left": "running"}
    assert states(folder)["left"] == "unfinished"


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("result.json", "does not match its checksum"),
        ("rounds.jsonl", "rounds.jsonl"),
        ("partition.json", "is missing: the run is not whole"),
        ("config.yaml", "are not of the same run"),
    ],
)
def test_damage_is_named(folder, file, words):
    path = folder / "done/1" / file
    if file == "partition.json":
        path.unlink()
    else:
        path.write_text(path.read_text().replace("rounds: 3", "rounds: 4").replace("0.", "1.", 1))
    found = next(overview(folder))
    assert found.state == "damaged"
    assert words in found.reason


def test_a_run_of_another_results_version_is_outdated(folder, monkeypatch):
    monkeypatch.setattr(directories, "RESULTS_VERSION", 99)
    assert states(folder) == {"done": "outdated", "left": "outdated"}


def test_the_round_is_read_off_the_checkpoints_names(tmp_path):
    assert last_saved(tmp_path / "none") == 0
    for name in ("round_000002", "round_000010", ".round_000011.7", "personal"):
        (tmp_path / name).mkdir()
    assert last_saved(tmp_path) == 10


def test_the_command_prints_a_table_and_json(folder, capsys):
    assert main(["status", "runs"]) == 0
    out = capsys.readouterr().out
    lines = [line.split() for line in out.splitlines()]
    assert ["runs/done/1", "finished", "3", "of", "3"] in [line[:5] for line in lines]
    assert ["runs/left/1", "unfinished", "1", "of", "3"] in lines
    assert "to go on: fedlt run runs/left/1/config.yaml" in out
    assert out.splitlines()[-1] == "1 finished, 1 unfinished"
    assert main(["status", "--json"]) == 0  # of runs/
    document = json.loads(capsys.readouterr().out)
    assert [one["state"] for one in document["runs"]] == ["finished", "unfinished"]
    assert main(["status", "runs/done/1"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 finished"


def test_a_folder_without_runs_and_no_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["status", "."]) == 0
    assert capsys.readouterr().out == "no run below .\n"
    assert main(["status"]) == 2
    assert "error: runs is not a folder" in capsys.readouterr().err
    with pytest.raises(FedltError, match="not a folder"):
        list(overview(Path("none")))
