"""No traceback: what no command has foreseen is one line, and the traceback lies in a file."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from fedlt.cli import main

BASE = "name: a\nrounds: 1\nengine: {name: serial}\n"


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def line_of(capsys, *arguments: str, code: int = 2) -> str:
    assert main([*arguments]) == code
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if not line.startswith("executes ")]
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("error: ")
    assert len(lines[0]) <= 2100
    return lines[0]


def test_a_fault_of_fedlt_s_own(capsys, monkeypatch, tmp_path):
    import fedlt.comparing.common

    def fail(*_, **__):
        raise KeyError("a fault\nof two lines")

    monkeypatch.setattr(fedlt.comparing.common, "read_common", fail)
    Path("a.yaml").touch()
    line = line_of(capsys, "inspect", "a.yaml", code=1)
    assert "fedlt itself fails: KeyError" in line
    (file,) = tmp_path.glob("fedlt-error-*.txt")
    assert line.endswith(f"; the traceback is in {file}")
    assert 'raise KeyError("a fault' in file.read_text()


CODES = {
    "import sys; sys.exit(3)": "mine.py fails on import: the code ends the process: sys.exit(3)",
    "raise SystemExit": "sys.exit(None)",
    "raise GeneratorExit('x')": "GeneratorExit: x",
    "class Stop(BaseException): pass\nraise Stop('no')": "Stop: no (mine.py, line 2)",
    "def load(: pass": "SyntaxError",
    "1 / 0": "ZeroDivisionError: division by zero (mine.py, line 1)",
    "open('gone/x.npz')": "no file '",
    "class E(Exception):\n  def __str__(self): raise self\nraise E": "mine.py fails on import: E",
    "x = 3": "has no 'load'",
    "load = 3": "not a function",
    "def load(): return 3": "must return a fedlt Dataset, got int",
    "def load(): raise SystemExit(4)": "fails: the code ends the process: sys.exit(4) (mine.py",
    "def load(a): return a": "needs 'a'",
    "import numpy as np\ndef load(): return np.load('gone.npz')": "gone.npz' (mine.py, line 2)",
    "raise RecursionError": "RecursionError",
    "raise MemoryError": "MemoryError",
    "raise ValueError('a\\nb')": "fails on import: a b",
}


@pytest.mark.parametrize("code", CODES)
def test_whatever_a_user_s_file_does_is_one_line(code, capsys):
    Path("mine.py").write_text(code)
    Path("a.yaml").write_text(BASE)
    line = line_of(capsys, "run", "a.yaml", "data.dataset=mine.py:load")
    assert CODES[code] in line
    left = {path.name for path in Path().iterdir()} - {"__pycache__"}
    assert left == {"a.yaml", "mine.py"}


def test_ctrl_c_inside_a_user_s_file_is_ctrl_c(capsys):
    Path("mine.py").write_text("raise KeyboardInterrupt")
    Path("a.yaml").write_text(BASE)
    assert main(["run", "a.yaml", "data.dataset=mine.py:load"]) == 130
    assert "interrupted; to go on from the start: fedlt run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "a.yaml", "seed=!!bool foo"], "'foo' is no bool"),
        (["run", "a.yaml", f"seed={'9' * 5000}"], "a whole number of 5000 digits"),
        (["run", "a.yaml", f"strategy.mu={'9' * 5000}"], "a whole number of 5000 digits"),
        (["run", "a.yaml", f"name={'n' * 300}"], "at most 100 characters"),
        (["run", "a.yaml", f"output={'o' * 300}"], "more than a path"),
        (["run", "a.yaml", f"output={'o/' * 3000}"], "more than a path"),
        (["run", "a.yaml", f"data.root={'o' * 9000}"], "more than a path"),
        (["run", "a.yaml", f"data.dataset={'o' * 9000}.py:load"], "more than a path"),
        (["run", "a.yaml", f"data.dataset={'o' * 9000}:load"], "cannot import"),
        (["run", "a.yaml", f"data.dataset={'o' * 9000}"], "unknown"),
        (["run", "a.yaml", f"strategy={'o' * 9000}"], "unknown strategy"),
        (["run", "a.yaml", f"{'o' * 9000}=1"], "unknown key"),
        (["run", "a.yaml", "data.dataset=:a"], "neither a file.py nor a package.module"),
        (["run", "a.yaml", "data.dataset='os:'"], "has no ''"),
        (["run", "a.yaml", "strategy=./:X"], "neither a file.py nor a package.module"),
        (["run", "a.yaml", "strategy=..:X"], "neither a file.py nor a package.module"),
        (["run", "a.yaml", "strategy='.py:X'"], "no file"),
        (["run", "a.yaml", "output=~nobody_of_that_name/x"], "cannot be used"),
        (["run", "x" * 9000], "cannot be read"),
        (["run", "/dev/zero"], "a pipe or a device"),
        (["report", "/proc"], "/proc"),
        (["report", "x" * 9000], "File name too long"),
        (["rescore", "/proc"], "/proc"),
        (["realign", "/proc", "--method", "tau_norm"], "/proc"),
        (["realign", "x" * 9000, "--method", "tau_norm"], "File name too long"),
        (["run", "a.yaml", "local.batch_size=1000001"], "at most 1,000,000"),
        (["run", "a.yaml", "local.epochs=10001"], "at most 10000"),
        (["run", "a.yaml", "rounds=1000001"], "at most 1,000,000"),
        (["run", "a.yaml", "partition.num_clients=1000001"], "at most 1,000,000"),
        (["run", "a.yaml", "model.width=8193"], "at most 8192"),
        (["run", "a.yaml", "client={name: deit_lt, depth: 101}"], "at most 100"),
        (["run", "a.yaml", "strategy={name: fedrep, head_epochs: 1000001}"], "at most 1,000,000"),
        (["run", "a.yaml", "strategy={name: fedadam, eta: -1}"], "strategy.eta is -1"),
        (["run", "a.yaml", "strategy={name: fedadam, beta_1: 1}"], "less than 1"),
        (["run", "a.yaml", "strategy={name: fedavgm, server_momentum: -0.1}"], "at least 0"),
    ],
)
def test_what_was_a_traceback_is_one_line_and_nothing_is_written(arguments, words, capsys):
    Path("a.yaml").write_text(BASE)
    assert words in line_of(capsys, *arguments)
    assert [path.name for path in Path().iterdir()] == ["a.yaml"]
