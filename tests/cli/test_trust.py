"""User code and commands: reading commands execute none, training commands name it first."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedlt.cli import main
from fedlt.comparing.recipes import about_of

CODE = """
from pathlib import Path
Path("MARK").touch()
from strategies.fedavg import FedAvg
from clients.cross_entropy import CrossEntropy
from fedlt.data import DATASETS
from fedlt.engines.serial import SerialEngine
from fedlt.models.cnn import Cnn
load = DATASETS["digits"]
def net(in_channels, image_size, width, norm):
    return Cnn(in_channels, width=2, norm=norm)
class S(FedAvg): pass
class C(CrossEntropy): pass
class E(SerialEngine): pass
"""
KEYS = {
    "data.dataset": "data: {dataset: 'theirs.py:load'}",
    "model.name": "model: {name: 'theirs.py:net'}",
    "strategy.name": "strategy: 'theirs.py:S'",
    "client.name": "client: 'theirs.py:C'",
    "engine.name": "engine: {name: 'theirs.py:E'}",
}
TINY = "rounds: 1\npartition: {num_clients: 2}\nmodel: {width: 2}\nengine: {name: serial}\n"


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    Path("theirs.py").write_text(CODE)


def file(key: str) -> str:
    section = key.partition(".")[0]
    lines = [line for line in TINY.splitlines() if not line.startswith(f"{section}:")]
    Path("a.yaml").write_text("\n".join(["name: a", *lines, KEYS[key]]))
    return "a.yaml"


def forget() -> None:
    """Import the file anew, as another process would."""
    import sys

    Path("MARK").unlink(missing_ok=True)
    for name in [name for name in sys.modules if name.startswith("fedlt_user_theirs")]:
        del sys.modules[name]


@pytest.mark.parametrize("key", KEYS)
def test_inspect_executes_no_code_of_a_file_without_trust(key, capsys):
    forget()
    assert main(["inspect", file(key)]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert f"a.yaml: {key} names " in captured.err
    assert "--trust" in captured.err
    assert not Path("MARK").exists()


def test_a_function_of_any_module_counts_as_code(capsys):
    """``os:mkdir`` with its arguments in ``data.options`` is a command, without any file."""
    Path("a.yaml").write_text("name: a\nrounds: 1\ndata: {dataset: 'os:mkdir', options: {}}")
    assert main(["inspect", "a.yaml"]) == 2
    assert "data.dataset names os:mkdir" in capsys.readouterr().err


def test_inspect_says_what_it_executes_with_trust_or_by_the_command_line(capsys):
    where = f"executes {Path.cwd()}/theirs.py (data.dataset)\n"
    for arguments in (
        ["--trust"],
        ["data.dataset=theirs.py:load"],
        ["data={dataset: 'theirs.py:load'}"],
    ):
        forget()
        assert main(["inspect", file("data.dataset"), *arguments]) == 0
        captured = capsys.readouterr()
        assert captured.err == where
        assert "client" in captured.out
        assert Path("MARK").exists()


def test_a_stranger_s_run_folder_is_read_without_its_code(capsys):
    """A run of a file with a class of its own; then all that reads: the class leaves a mark."""
    assert main(["run", file("strategy.name")]) == 0
    first, *_ = capsys.readouterr().err.splitlines()
    assert first == f"executes {Path.cwd()}/theirs.py (strategy.name)"
    reads = [
        ["report", "runs/a/1"],
        ["rescore", "runs/a/1"],
        ["list", "experiments"],
        ["list", "recipes"],
    ]
    for arguments in reads:
        forget()
        assert main(arguments) == 0, arguments
        assert not Path("MARK").exists(), arguments
    assert main(["inspect", "runs/a/1/config.yaml"]) == 2
    assert not Path("MARK").exists()
    capsys.readouterr()
    for arguments in (
        ["run", "runs/a/1/config.yaml", "--overwrite"],
        ["realign", "runs/a/1", "--method", "tau_norm", "--tau", "1"],
    ):
        forget()
        assert main(arguments) == 0, arguments
        lines = capsys.readouterr().err.splitlines()
        assert lines[0] == f"executes {Path.cwd()}/theirs.py (strategy.name)"
        assert Path("MARK").exists()


def test_recipes_of_a_stranger_s_folder_are_not_looked_at(capsys):
    forget()
    folder = Path("experiments/paper")
    folder.mkdir(parents=True)
    text = "name: a\nrounds: 1\ncompare: {rows: {A: {client: '../../theirs.py:C'}}}\n"
    (folder / "fedloge.yaml").write_text(f"{text}reproduce: {{about: Mine}}\n")
    assert main(["list", "recipes"]) == 0
    assert "Mine" not in capsys.readouterr().out
    assert not Path("MARK").exists()


def test_a_recipe_is_listed_without_its_code(capsys):
    forget()
    text = "name: a\nrounds: 1\ncompare: {rows: {A: {client: 'theirs.py:C'}}}\n"
    Path("one.yaml").write_text(f"{text}reproduce: {{about: Mine}}\n")
    Path("two.yaml").write_text("name: [")
    Path("three.yaml").write_text(f"{text}reproduce: {{}}\n")
    assert about_of(Path("one.yaml")) == "Mine"
    assert "two.yaml: not valid YAML" in about_of(Path("two.yaml"))
    assert "has no section 'reproduce'" in about_of(Path("three.yaml"))
    assert not Path("MARK").exists()


@pytest.mark.slow
def test_compare_says_what_its_rows_and_their_processes_execute(capsys, monkeypatch):
    from fedlt.comparing import schedule

    order = []
    monkeypatch.setattr(schedule, "run_planned", lambda *_, **__: order.append("ran") or [])
    text = "name: a\n" + TINY.replace("engine: {name: serial}", "data: {dataset: 'theirs.py:load'}")
    Path("a.yaml").write_text(f"{text}compare: {{rows: {{A: {{}}, B: {{client: 'theirs.py:C'}}}}}}")
    main(["compare", "a.yaml", "--no-report"])
    lines = capsys.readouterr().err.splitlines()
    assert f"executes {Path.cwd()}/theirs.py" in lines[0]
    assert sum(line.startswith("executes ") for line in lines) == 1
