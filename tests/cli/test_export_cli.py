"""``fedlt export``: what it prints and writes, and one line for every mistake."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import safetensors.torch

from fedlt.cli import main
from fedlt.runs.directory import RunDirectory
from fedlt.simulate import run

SEED = "1"


@pytest.fixture(scope="module")
def runs(lab_factory):
    """FedLoGe, a method without a generic model, two seeds, and a client without images."""
    lab = lab_factory("export")
    made = {
        "fedloge": lab.config(name="fedloge", strategy="fedloge"),
        "alone": lab.config(name="alone", strategy="local_only", rounds=1, clients_per_round=5),
        "empty": lab.config(
            name="empty",
            rounds=1,
            partition={"dirichlet_alpha": 0.05, "num_clients": 9, "min_samples": 0},
        ),
        "seeds": lab.config(name="seeds", seed=1, rounds=1),
        "more": lab.config(name="seeds", seed=2, rounds=1),
    }
    for config in made.values():
        run(config)
    return {name: RunDirectory.of(config).path for name, config in made.items()}


def failed(capsys, *arguments: object) -> str:
    """Return the error line of a command that fails."""
    assert main(["export", *map(str, arguments)]) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert captured.out == ""
    return line.removeprefix("error: ")


def test_one_command_writes_the_generic_model_and_a_clients(runs, tmp_path, capsys):
    """The case of a user who wants plain tensors: both are one command each."""
    folder, file = runs["fedloge"].parent, tmp_path / "model.safetensors"
    assert main(["export", str(folder), "-o", str(file)]) == 0
    first, *paths = capsys.readouterr().out.splitlines()
    info = json.loads((tmp_path / "model.safetensors.json").read_text())
    percent = f"{100 * info['score']['accuracy']:.1f} %"
    assert (
        first
        == f"exported the generic model with its head 'realigned', {percent} on all test images"
    )
    assert paths == [str(file), f"{file}.json"]
    assert "backbone.layers.0.weight" in safetensors.torch.load_file(file)
    own = tmp_path / "own.safetensors"
    assert main(["export", str(folder), "--client", "3", "--head", "local", "-o", str(own)]) == 0
    assert capsys.readouterr().out.startswith(
        "exported the model of client 3 with its head 'local', "
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "model.safetensors", "model.safetensors.json", "own.safetensors", "own.safetensors.json",
    ]  # fmt: skip


def test_a_file_is_replaced_only_by_a_flag(runs, tmp_path, capsys):
    file = tmp_path / "model.safetensors"
    beside = Path(f"{file}.json")
    beside.write_text("mine")
    line = failed(capsys, runs["fedloge"], "-o", file)
    assert line == f"{beside} exists; --overwrite replaces it"
    assert beside.read_text() == "mine"
    assert not file.exists()
    assert main(["export", str(runs["fedloge"]), "-o", str(file), "--overwrite"]) == 0
    assert json.loads(beside.read_text())["file"] == "model.safetensors"


@pytest.mark.parametrize(
    ("name", "arguments", "parts"),
    [
        ("fedloge", ["--client", "9"], ["no client 9", "nearest: 4", "known: 0 to 4"]),
        ("fedloge", ["--client", "-1"], ["no client -1", "nearest: 0"]),
        (
            "fedloge",
            ["--head", "realined"],
            ["head: no head 'realined' here", "nearest: 'realigned'", "sse_c"],
        ),
        (
            "fedloge",
            ["--client", "1", "--head", "sse_c"],
            ["head: no head", "realigned_v1", "local"],
        ),
        ("fedloge", ["--format", "onxx"], ["--format: unknown 'onxx'", "nearest: 'onnx'"]),
        ("fedloge", ["--format", "pt2"], ["says safetensors", "--format says pt2"]),
        ("alone", [], ["'local_only' has no generic model", "give a client, such as 0"]),
    ],
    ids=str,
)
def test_mistakes_are_one_line(runs, tmp_path, capsys, name, arguments, parts):
    line = failed(capsys, runs[name], *arguments, "-o", tmp_path / "model.safetensors")
    assert all(part in line for part in parts), line
    assert not [*tmp_path.iterdir()]


def test_a_client_without_images(runs, tmp_path, capsys):
    sizes = json.loads((runs["empty"] / "partition.json").read_text())["clients"]
    empty = [cid for cid, rows in enumerate(sizes) if not rows]
    line = failed(capsys, runs["empty"], "--client", empty[0], "-o", tmp_path / "m.pt2")
    assert f"client {empty[0]} has no training images" in line
    assert "nearest with images: " in line


def test_places_that_are_wrong(runs, tmp_path, capsys):
    line = failed(capsys, runs["seeds"].parent, "-o", tmp_path / "m.pt2")
    assert "holds runs of seeds 1, 2; give one" in line
    line = failed(capsys, tmp_path, "-o", tmp_path / "m.pt2")
    assert "neither a run directory nor a folder of runs" in line
    line = failed(capsys, runs["seeds"], "-o", tmp_path / "m.bin")
    assert "the name must end in .safetensors" in line
    line = failed(capsys, runs["seeds"], "-o", tmp_path / "no" / "m.pt2")
    assert "is no folder" in line
    unfinished = tmp_path / "unfinished"
    shutil.copytree(runs["seeds"], unfinished / SEED)
    (unfinished / SEED / "result.json").unlink()
    line = failed(capsys, unfinished, "-o", tmp_path / "m.pt2")
    assert "is not finished" in line
