"""`fedlt new` writes what runs at once, or nothing; `fedlt check` prints one line a check."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fedlt.cli import main, templates

HOME = Path(__file__).parents[2]
BROKEN = HOME / "tests/check/broken.py"
KINDS = ("strategy", "client")


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")


def files():
    return sorted(str(p) for p in Path().rglob("*") if p.is_file() and "cache" not in str(p))


def refused(capsys, *arguments):
    assert main([*arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    return captured.err


@pytest.mark.slow
def test_new_runs_as_it_is(capsys):
    """In an empty directory: the runs and the tests pass at once, as a user starts them."""
    for kind, name in (("strategy", "my_method"), ("client", "my_loss")):
        assert main(["new", kind, name]) == 0
        assert f"next: fedlt run {name}.yaml; pytest test_{name}.py" in capsys.readouterr().out
        text = Path(f"{name}.py").read_text()
        assert f"New{kind.capitalize()}" not in text
        assert f"new_{kind}" not in text
    names = ["my_loss", "my_method"]
    found = [file.format(name) for file in ("{}.py", "{}.yaml", "test_{}.py") for name in names]
    assert files() == sorted(found)
    assert main(["run", "my_loss.yaml", "rounds=1"]) == 0
    for command in (["fedlt", "run", "my_method.yaml", "rounds=1"], ["pytest", "-q", *found[4:]]):
        done = subprocess.run(
            [sys.executable, "-m", *command],
            env={**os.environ, "PYTHONPATH": str(HOME)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert all(Path(f"runs/{name}/1/result.json").is_file() for name in names)


@pytest.mark.parametrize("kind", KINDS)
def test_new_class_is_named_after_its_file(kind):
    assert main(["new", kind, "fed_proxTwo2", "--folder", "a/b"]) == 0
    tree = ast.parse(Path("a/b/fed_proxTwo2.py").read_text())
    assert [n.name for n in tree.body if isinstance(n, ast.ClassDef)] == ["FedProxTwo2"]
    text = "".join(path.read_text() for path in Path("a/b").iterdir())
    assert f"new_{kind}" not in text
    assert "fed_proxTwo2.py:FedProxTwo2" in Path("a/b/fed_proxTwo2.yaml").read_text()


@pytest.mark.parametrize("there", ["mine.py", "test_mine.py", "mine.yaml"])
def test_new_overwrites_nothing_and_writes_all_or_none(there, capsys):
    Path(there).write_text("keep")
    assert f"{there} is there already; nothing was written" in refused(
        capsys, "new", "strategy", "mine"
    )
    assert files() == [there]
    assert Path(there).read_text() == "keep"


def test_new_leaves_nothing_when_a_write_fails(capsys, monkeypatch):
    """The second file cannot be made: the first one and the new folders go again."""
    opened = Path.open

    def failing(self, mode="r", *args, **more):
        if mode == "xb" and self.name.startswith("test_"):
            raise OSError(28, "No space left on device")
        return opened(self, mode, *args, **more)

    monkeypatch.setattr(Path, "open", failing)
    line = refused(capsys, "new", "client", "mine", "--folder", "a/b")
    assert "test_mine.py cannot be written: No space left on device" in line
    assert not Path("a").exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("2fast", "'2fast' is no name of a Python module"),
        ("my-method", "no name of a Python module"),
        ("../mine", "no name of a Python module"),
        ("class", "no name of a Python module"),
        ("_", "no name of a Python module"),
        ("random", "name of another module"),
        ("torch", "name of another module"),
        ("strategies", "name of another module"),
        ("test_mine", "name of another module"),
        ("strategy", "makes a class Strategy, which is taken"),
        ("none", "makes a class None, which is taken"),
    ],
)
def test_new_refuses_a_name(capsys, name, words):
    assert words in refused(capsys, "new", "strategy", name)
    assert files() == []


def test_templates_are_all_used():
    found = {p.name for p in Path(templates.__file__).parent.iterdir() if p.is_file()}
    used = {
        pattern.format(f"new_{kind}")
        for kind in KINDS
        for pattern in sys.modules["fedlt.cli.new"]._PATTERNS
    }
    assert found == used | {"__init__.py"}


def test_check_prints_a_line_a_check(capsys):
    assert main(["check", f"{BROKEN}:ServerMomentum", "beta=0.2", "--no-ray"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == ["ok"] * 16
    assert "ServerMomentum(beta=0.2)" in lines[0]
    assert lines[-1] == "ServerMomentum keeps its contract: 16 checks"
    assert files() == []


def test_check_says_what_to_change_and_where(capsys):
    assert main(["check", f"{BROKEN}:HalvesTheMean", "--no-ray"]) == 1
    out = capsys.readouterr().out
    assert "\033" not in out
    assert "fail weights" in out
    assert "change: divide sums by total.weight" in out
    assert "broken.py:" in out.partition("where: ")[2].partition("\n")[0]
    assert out.splitlines()[-1] == "HalvesTheMean: 1 of 16 checks fail"


def test_check_of_a_plugin_with_a_strategy(capsys):
    assert main(["check", "balanced_softmax", "--with", "fedloge", "--no-ray"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("keeps its contract: 13 checks")


@pytest.mark.slow
@pytest.mark.ray
def test_check_tries_ray_unless_told_not_to(capsys):
    assert main(["check", "fedavg"]) == 0
    assert "Ray with 2 workers" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fedavgg"], "no strategy or client plugin 'fedavgg'; nearest: 'fedavg'"),
        (["mine.py:Mine"], "no file"),
        ([f"{BROKEN}:Nothing"], "has no 'Nothing'"),
        ([f"{BROKEN}:ServerMomentum", "beta=x"], "strategy.beta is 'x'; expected a number"),
        ([f"{BROKEN}:ServerMomentum", "bta=1"], "nearest: 'beta'"),
        ([f"{BROKEN}:ServerMomentum", "beta"], "expected key=value"),
        (["fedavg", "--with", "croos_entropy"], "unknown client 'croos_entropy'"),
        ([], "Missing argument 'NAME'"),
    ],
)
def test_check_of_bad_input(capsys, arguments, words):
    assert words in refused(capsys, "check", *arguments)


HELP = {
    "run": "An experiment of 'fedlt list experiments', or a file (YAML).",
    "inspect": "An experiment of 'fedlt list experiments', or a file (YAML).",
    "list": "strategies, clients, models, datasets, engines, experiments or recipes.",
    "new": "Names the files; a Python identifier.",
    "check": "path/to/mine.py:Class, package.module:Class or a built-in name.",
}


@pytest.mark.parametrize("verb", HELP)
def test_help_is_plain_text(verb, capsys):
    """No escapes; every argument once, with its help."""
    assert main([verb, "--help"]) == 0
    out = capsys.readouterr().out
    assert "\\" not in out
    assert "\033" not in out
    assert " ".join(out.split()).count(HELP[verb]) == 1
    assert out.count("[required]") == (2 if verb == "new" else 1)


def test_list_engines(capsys):
    assert main(["list", "engines"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {"auto", "serial", "ray", "stacked"} <= {line.split()[0] for line in lines}
