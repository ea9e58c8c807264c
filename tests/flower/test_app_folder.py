"""``fedlt app``: the folder it writes, Flower's bundle of it, and what it refuses."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from doc_blocks import ROOT
from flwr.app import Context, RecordDict
from packaging.requirements import Requirement
from wire_grid import WireGrid

from fedlt.check import TINY
from fedlt.check.tiny_runs import read_rows
from fedlt.cli import main
from fedlt.errors import FedltError
from fedlt.runs.directory import RunDirectory

OWN = """
from dataclasses import dataclass
from helper import FACTOR
from strategies.fedavg import FedAvg


@dataclass(frozen=True)
class Mine(FedAvg):
    def objective(self, client, batch):
        return FACTOR * super().objective(client, batch)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "helper", raising=False)
    (tmp_path / "mine.py").write_text(OWN)
    (tmp_path / "helper.py").write_text("FACTOR = 0.5\n")
    tree = TINY | {"name": "tiny", "strategy": "mine.py:Mine"}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tree))
    return tmp_path


def run_app(folder, cids=5, **run_config):
    """Run the apps of a folder on a wire grid, as Flower would load them."""
    found = {}
    for half in ("server_app", "client_app"):
        path = folder / f"{half}.py"
        names = {"__file__": str(path)}
        exec(compile(path.read_text(), str(path), "exec"), names)
        found[half] = names["app"]
    config = {"experiment": "experiment.yaml", "set": "", "output": "", "resume": False}
    config |= run_config
    grid = WireGrid(found["client_app"], cids, run_config=config)
    found["server_app"](grid, Context(1, 1, {}, RecordDict(), config))


def test_an_app_runs_from_its_folder_alone(folder, capsys, identity, monkeypatch):
    assert main(["app", "tiny.yaml", "out", "rounds=2"]) == 0
    written = {path.name for path in (folder / "out").iterdir()}
    assert written >= {"mine.py", "helper.py", "pyproject.toml", "LICENSE", "compose.yaml"}
    for name in ("mine.py", "helper.py"):
        (folder / name).write_text("raise ImportError('the original')\n")
    monkeypatch.delitem(sys.modules, "helper")
    monkeypatch.syspath_prepend(str(folder / "out"))  # as Flower does
    run_app(folder / "out", output=str(folder / "here"), set="local.lr=0.2 seed=3")
    directory = RunDirectory(folder / "here" / "tiny" / "3")
    assert directory.config().local.lr == 0.2
    assert [row["round"] for row in read_rows(directory)] == [1, 2]
    shown = capsys.readouterr().out.splitlines()
    assert shown[-1].startswith("flwr run out fedlt --stream -c")


def test_a_run_cannot_change_the_mods_of_its_app(folder, identity):
    """A node's app is made before it knows the run, so another mod would not be there."""
    assert main(["app", "tiny.yaml", "out", "strategy=fedavg"]) == 0
    changed = "flower.mods=[flwr.clientapp.mod:message_size_mod]"
    with pytest.raises(FedltError, match="the mods of an app are those of its folder"):
        run_app(folder / "out", output=str(folder / "here"), set=changed)


def test_flower_builds_the_bundle(folder, capsys):
    assert main(["app", "tiny.yaml", "out", "--check"]) == 0
    assert ".fab: " in capsys.readouterr().out
    project = tomllib.loads((folder / "out" / "pyproject.toml").read_text())
    assert project["tool"]["flwr"]["app"]["fab-format-version"] == 1
    ours = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    (flower,) = [one for one in ours if one.startswith("flwr[simulation]")]
    found, wanted = (Requirement(text) for text in (*project["project"]["dependencies"], flower))
    assert (found.name, found.specifier) == (wanted.name, wanted.specifier)
    compose = yaml.safe_load((folder / "out" / "compose.yaml").read_text())
    assert list(compose["services"]) == ["superlink", *(f"node-{cid}" for cid in range(5))]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tiny.yaml", "out", "seeds=[1,2]"], "one run is one seed: give seed, not seeds"),
        (["tiny.yaml", "out", "more"], "'more' is no key=value, and the folder is 'out'"),
        (["tini.yaml"], "tini.yaml"),
        (["tiny.yaml", "out", "strategy=fedlog"], "nearest: 'fedloge'"),
        (["tiny.yaml", "out", "deployment.data=nodes"], "deployment.image_shape: is missing"),
        (
            ["tiny.yaml", "out", "deployment={data: nodes, image_shape: [1, 6, 5]}"],
            "data.options.classes: is missing",
        ),
    ],
)
def test_what_cannot_be_an_app_is_one_line(folder, capsys, arguments, words):
    before = sorted(folder.rglob("*"))
    assert main(["app", *arguments]) == 2
    *executed, error = capsys.readouterr().err.splitlines()
    assert words in error
    assert all(line.startswith("executes ") for line in executed)
    assert sorted(p for p in folder.rglob("*") if "__pycache__" not in p.parts) == before


def test_nothing_is_overwritten(folder, capsys):
    assert main(["app", "tiny.yaml", "out"]) == 0
    assert main(["app", "tiny.yaml", "out"]) == 2
    assert "is there already; nothing was written" in capsys.readouterr().err


def test_code_outside_the_folder_of_its_file_is_refused(folder, capsys):
    (folder / "code").mkdir()
    (folder / "mine.py").rename(folder / "code" / "mine.py")
    assert main(["app", "tiny.yaml", "out", "strategy=code/mine.py:Mine"]) == 2
    assert "lies outside the folder" in capsys.readouterr().err


def test_paths_of_images_at_nodes_are_names(folder):
    options = "data.options={path: /secret/place/mine.npz, classes: [a, b]}"
    changes = ["data.dataset=npz", options, "data.imbalance_factor=1.0", "strategy=fedavg"]
    changes += ["partition={num_clients: 2}", "clients_per_round=2"]
    changes.append("deployment={data: nodes, image_shape: [1, 6, 5]}")
    assert main(["app", "tiny.yaml", "out", *changes]) == 0
    text = (folder / "out" / "experiment.yaml").read_text()
    assert "mine.npz" in text
    assert "secret" not in text
    assert "data=" in (folder / "out" / "compose.yaml").read_text()
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("name", "better"),
    [("|", "app"), ("my_app", "my-app"), ("3rd", "app-3rd"), ("a" * 40, "a" * 32)],
)
def test_a_folder_that_flower_refuses_is_refused_before_it_is_written(folder, capsys, name, better):
    """Flower's rule for the names of apps: a letter first, letters, digits, hyphens, at most 32."""
    assert main(["app", "tiny.yaml", name]) == 2
    line = capsys.readouterr().err
    assert f"no app folder named {name!r}" in line
    assert line.rstrip().endswith(f"as {better!r}")
    assert not (folder / name).exists()
