"""The run directory: states, what may be written when, resume, atomic files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from fedlt.config import Config, PluginConfig, load_config
from fedlt.errors import FedltError
from fedlt.runs.creation import create_run
from fedlt.runs.directory import RunDirectory
from fedlt.runs.environment import environment
from fedlt.runs.files import write_sealed
from fedlt.runs.fingerprint import declared
from fedlt.runs.recorded import cut_rounds


class FakePartition:
    def save(self, path):
        Path(path).write_text("{}")


class BrokenPartition:
    def save(self, path):
        raise OSError("disk full")


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Config(name="a", rounds=3, seed=7, output=str(tmp_path / "runs"))


def made(config, **how) -> RunDirectory:
    directory = RunDirectory.of(config)
    create_run(directory, config, FakePartition(), declared(config), **how)
    return directory


RESULT = {
    **dict.fromkeys(("seed", "rounds", "split", "shots", "partition_hash", "seconds")),
    "final": {"generic/accuracy": 0.5},
    "last_k": {},
}


def changed(config, **update):
    return config.model_copy(update=update)


def test_path_is_output_name_seed(config, tmp_path):
    directory = RunDirectory.of(config)
    assert directory.path == tmp_path / "runs" / "a" / "7"
    assert directory.state == "absent"
    assert directory.decide(config) == "start"
    assert directory.decide(config, resume=True) == "start"
    assert not (tmp_path / "runs").exists()


def test_create_writes_what_the_design_says(config):
    directory = made(config)
    assert sorted(path.name for path in directory.path.iterdir()) == [
        "checkpoints",
        "config.yaml",
        "environment.json",
        "evaluations",
        "fingerprint.json",
        "partition.json",
        "rounds.jsonl",
    ]
    assert directory.config() == config
    assert yaml.safe_load((directory.path / "config.yaml").read_text())["seed"] == 7
    assert directory.state == "unfinished"


def test_unfinished_names_both_ways_on(config):
    directory = made(config)
    with pytest.raises(FedltError, match="resume continues it, overwrite starts again"):
        directory.decide(config)
    assert directory.decide(config, resume=True) == "resume"
    assert directory.decide(config, overwrite=True) == "start"
    with pytest.raises(FedltError, match="not both"):
        directory.decide(config, overwrite=True, resume=True)


def test_finished_is_shown(config):
    directory = made(config)
    directory.write_result(RESULT, {})
    assert directory.state == "finished"
    assert directory.decide(config) == "show"
    assert directory.decide(config, resume=True) == "show"
    assert directory.decide(config, overwrite=True) == "start"
    assert directory.decide(changed(config, engine=config.engine.model_copy())) == "show"
    assert directory.result() == RESULT


@pytest.mark.parametrize("finished", [False, True])
def test_another_configuration_is_refused_by_key(config, finished):
    directory = made(config)
    if finished:
        directory.write_result(RESULT, {})
    local = config.local.model_copy(update={"lr": 3.0})
    other = changed(config, local=local, strategy=PluginConfig(name="x", options={"mu": 1}))
    with pytest.raises(FedltError, match=r"local\.lr, strategy\.mu, strategy\.name; name=\.\.\."):
        directory.decide(other)
    with pytest.raises(FedltError, match=r"cannot be resumed: .*local\.lr, strategy\.mu"):
        directory.decide(other, resume=True)
    assert directory.decide(other, overwrite=True) == "start"


def test_an_edited_file_of_the_user_is_noticed(config):
    Path("s.py").write_text("x = 1")
    Path("e.yaml").write_text("name: a\nrounds: 3\nstrategy: s.py:S\n")
    mine = load_config("e.yaml")
    directory = made(mine)
    directory.write_result(RESULT, {})
    assert directory.decide(mine) == "show"
    Path("s.py").write_text("x = 2")
    with pytest.raises(FedltError, match=r"holds another run: s\.py has changed; name=\.\.\."):
        directory.decide(mine)


def test_create_replaces_a_run_whole(config):
    directory = made(config)
    directory.append_round({"round": 1})
    directory.write_result(RESULT, {})
    (directory.checkpoints / "round_000001").mkdir()
    with pytest.raises(FedltError, match="in use: another process has made it"):
        made(config)
    assert directory.state == "finished"
    directory = made(config, overwrite=True)
    assert directory.state == "unfinished"
    assert directory.rounds() == []
    assert not any(directory.checkpoints.iterdir())


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_is_not_a_run_is_left_alone(config, overwrite):
    directory = RunDirectory.of(config)
    directory.path.mkdir(parents=True)
    assert directory.decide(config) == "start"
    (directory.path / "thesis.tex").touch()
    with pytest.raises(FedltError, match="is not a run directory"):
        directory.decide(config, overwrite=overwrite)
    with pytest.raises(FedltError, match="is not a run directory"):
        made(config)
    assert (directory.path / "thesis.tex").exists()


def test_failure_while_making_leaves_nothing(config):
    directory = RunDirectory.of(config)
    with pytest.raises(FedltError, match="cannot be made: disk full"):
        create_run(directory, config, BrokenPartition(), declared(config))
    assert list(directory.path.parent.iterdir()) == []


def test_output_that_cannot_be_made(config, tmp_path):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(FedltError, match="cannot be made"):
        made(config)


def test_rounds_append_and_truncate(config):
    directory = made(config)
    first = directory.append_round({"round": 1, "generic/accuracy": np.float32(0.5)})
    assert (directory.path / "rounds.jsonl").stat().st_size == first
    directory.append_round({"round": 2, "generic/few": float("nan"), "x": np.arange(2)})
    assert directory.rounds() == [
        {"round": 1, "generic/accuracy": 0.5},
        {"round": 2, "generic/few": None, "x": [0, 1]},
    ]
    cut_rounds(directory.path / "rounds.jsonl", first)
    assert [row["round"] for row in directory.rounds()] == [1]
    with (directory.path / "rounds.jsonl").open("a") as file:
        file.write('{"round": 2, "gen')
    assert [row["round"] for row in directory.rounds()] == [1]
    cut_rounds(directory.path / "rounds.jsonl", 0)
    assert directory.rounds() == []


def test_json_is_standard_and_leaves_no_temporary_file(tmp_path):
    path = tmp_path / "a.json"
    write_sealed(path, {"final": {"a": float("inf"), "b": (np.int64(3), None, True)}}, "0123")
    text = path.read_text()
    content = json.loads(text, parse_constant=pytest.fail)
    assert content["final"] == {"a": None, "b": [3, None, True]}
    assert content["run"] == "0123"
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("name", ["config.yaml", "fingerprint.json"])
@pytest.mark.parametrize("content", ["", "{", "[1]"])
def test_damaged_files_are_named_and_nothing_is_advised_that_deletes(config, name, content):
    directory = made(config)
    (directory.path / name).write_text(content)
    with pytest.raises(FedltError, match=f"{name}.*put back a copy of it") as caught:
        directory.decide(config)
    assert "--overwrite" not in str(caught.value)
    assert directory.decide(config, overwrite=True) == "start"


def test_environment_names_no_host_user_or_folder():
    import getpass
    import platform

    found = environment()
    assert {"python", "torch", "flwr", "ray", "fedlt", "numpy", "platform", "cpu", "cores"} <= {
        *found
    }
    assert found["torch"] is not None
    text = json.dumps(found)
    assert platform.node() not in text.replace('"', " ").split()
    assert f"/{getpass.getuser()}" not in text
    assert str(Path.home()) not in text
