"""Shell completion as bash asks for it: names and folders, without an import of anything heavy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedlt.cli import app


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("runs/two/fedavg/1/config.yaml", "runs/.hidden/x", "quick.yaml", "notes.txt"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def completed(line: str) -> list[str]:
    """Return what bash is told at the end of a line; bash makes ``=`` a word of its own."""
    words = line.split(" ")
    environment = {
        "_FEDLT_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }
    done = CliRunner().invoke(app, [], prog_name="fedlt", env=environment)
    return done.output.split()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("fedlt compa", ["compare"]),
        ("fedlt run qu", ["quickstart", "quick.yaml"]),
        ("fedlt run runs/t", ["runs/two/"]),
        ("fedlt run paper/fedl", ["paper/fedloge"]),
        ("fedlt reproduce fedl", ["fedloge"]),
        ("fedlt copy tables/five", ["tables/five_digits"]),
        ("fedlt report ru", ["runs/"]),
        ("fedlt report runs/", ["runs/two/"]),
        ("fedlt rescore runs/two/fedavg/", ["runs/two/fedavg/1"]),
        ("fedlt realign runs/two/fedavg/1", ["runs/two/fedavg/1"]),
        ("fedlt status no", []),
        ("fedlt list expe", ["experiments"]),
        ("fedlt run quickstart strategy.", ["strategy.name="]),
        ("fedlt run quickstart strategy=fedyo", ["strategy=fedyogi"]),
        ("fedlt run quickstart strategy = fedyo", ["fedyogi"]),
        ("fedlt run quickstart seed = 1 client.name = mdc", ["mdcs"]),
        ("fedlt run quickstart seed = 1", []),
        ("fedlt compare quickstart --strategies fedavg,ditt", ["fedavg,ditto"]),
        ("fedlt compare quickstart --strategies fedavg,fedavg_", ["fedavg,fedavg_ft"]),
        ("fedlt compare quickstart --clients bala", ["balanced_softmax"]),
        ("fedlt run quickstart --over", ["--overwrite"]),
    ],
)  # fmt: skip
def test_words_are_completed(line, words):
    assert sorted(completed(line)) == sorted(words)


def test_an_empty_value_gets_every_name():
    assert {"fedavg", "fedloge", "fedyogi"} <= set(completed("fedlt run quickstart strategy ="))


def test_completion_imports_nothing_heavy_and_no_folder_of_the_user():
    """A folder called ``strategies`` in the working directory is not executed."""
    Path("strategies").mkdir()
    Path("strategies/__init__.py").write_text("raise SystemExit('executed')")
    code = (
        "import sys; from fedlt.cli import main; main([]);"
        "heavy = {'torch', 'numpy', 'pydantic', 'flwr', 'ray', 'scipy'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    environment = os.environ | {
        "_FEDLT_COMPLETE": "complete_bash",
        "COMP_WORDS": "fedlt run quickstart strategy = fedl",
        "COMP_CWORD": "5",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.stdout.split() == ["fedlmd", "fedloge", "fedloge_experts"], done.stderr
