"""Every command and code block of README and docs does what it says, shortened where it is long."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer
import yaml
from doc_blocks import BLOCKS, PAGES, ROOT, Block, prose_of
from preloaded import preloaded

from fedlt.cli import app
from fedlt.comparing.comparison import read_comparison
from fedlt.comparing.recipes import read_recipe
from fedlt.config import Config
from fedlt.methods.lookup import resolve_client, resolve_strategy

# (page, first line) -> why it is not run here.
NOT_RUN = {
    (
        "README.md",
        "pip install -e . && fedlt run experiments/quickstart.yaml",
    ): ".ci/run runs both commands in a fresh environment",
    (
        "docs/first_run.md",
        "pip install -e . && fedlt run experiments/quickstart.yaml",
    ): "the README's first command, which .ci/run runs",
    ("CONTRIBUTING.md", "bash .ci/run"): "it is what runs this test",
    ("docs/export.md", "import json"): "tests/export runs it, and so do the page's commands",
    ("docs/export.md", "from safetensors.torch import load_file"): "tests/export runs it",
    ("docs/export.md", "import torch"): "the page's commands run it",
    ("CONTRIBUTING.md", 'pip install -e ".[dev]"'): "its steps are those of .ci/run",
}
LANGUAGES = {"bash", "python", "diff", "yaml", "toml", "text"}
SHIM = """#!/bin/sh
set -f
case "$1" in
{cases}  *) exec {fedlt} "$@" ;;
esac
"""


def key(block: Block) -> tuple[str, str]:
    return block.page, block.text.split("\n")[0]


def case(block: Block):
    return pytest.param(block, id=f"{block.page}-{block.number}")


def of(*languages: str) -> list:
    return [case(b) for b in BLOCKS if b.language in languages and key(b) not in NOT_RUN]


@pytest.fixture(scope="module")
def fedlt(tmp_path_factory):
    """The command, as an executable that need not import torch anew."""
    with preloaded(tmp_path_factory.mktemp("preloaded"), ROOT) as script:
        yield script


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A directory with the experiments and what else the page's files are."""
    shutil.copytree(ROOT / "experiments", tmp_path / "experiments")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_files(block: Block, folder: Path) -> None:
    for other in BLOCKS:
        if other.page == block.page and other.file:
            (folder / other.file).write_text(other.code + "\n")


def bash(
    script: str, folder: Path, fedlt: Path, overrides: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run a script in which ``fedlt``, ``python`` and ``pytest`` are those of this test."""
    tools = folder / ".tools"
    tools.mkdir(exist_ok=True)
    python = shlex.quote(sys.executable)
    cases = "".join(
        f'  {verb}) exec {fedlt} "$@" {words} ;;\n' for verb, words in overrides.items()
    )
    commands = {
        "fedlt": SHIM.format(cases=cases, fedlt=fedlt),
        "python": f'#!/bin/sh\nexec {python} "$@"\n',
        "pytest": f'#!/bin/sh\nexec {python} -m pytest -p no:cacheprovider "$@"\n',
    }
    for name, text in commands.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("block", of("bash"))
def test_commands_run(block, folder, fedlt):
    if "fedlt generate" in block.text:
        pytest.importorskip("diffusers", reason="needs fedlt[diffusion]")
    write_files(block, folder)
    if block.before:
        first = bash(block.before, folder, fedlt, block.overrides)
        assert first.returncode == 0, first.stdout + first.stderr
    done = bash(block.text, folder, fedlt, block.overrides)
    assert (done.returncode != 0) == block.fails, done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def python_blocks() -> list:
    """Return the blocks in Python; of a page's, all but the first are slow."""
    seen, cases = set(), []
    for one in of("python", "diff"):
        page = one.values[0].page
        marks = [pytest.mark.slow] if page in seen else []
        cases.append(pytest.param(*one.values, id=one.id, marks=marks))
        seen.add(page)
    return cases


@pytest.mark.parametrize("block", python_blocks())
def test_python_blocks_run(block, folder, request, monkeypatch):
    if block.before:
        first = bash(block.before, folder, request.getfixturevalue("fedlt"), {})
        assert first.returncode == 0, first.stdout + first.stderr
    monkeypatch.syspath_prepend(str(folder))
    file = folder / (block.file or "block.py")
    file.write_text(block.code + "\n")
    assert runpy.run_path(str(file), run_name="__main__")


@pytest.mark.parametrize("block", of("yaml"))
def test_yaml_blocks_are_configurations(block, folder):
    """A part of a file is a configuration once it has a name and a number of rounds."""
    if "reproduce" in yaml.safe_load(block.text):
        (folder / "file.yaml").write_text(block.text)
        assert read_recipe(folder / "file.yaml").figures
        return
    if "compare" in yaml.safe_load(block.text):
        (folder / "file.yaml").write_text(block.text)
        assert read_comparison(folder / "file.yaml")
        return
    keys = re.findall(r"^\w+(?=:)", block.text, re.MULTILINE)
    twice = len(set(keys)) < len(keys)  # two ways to write it, a line each
    for part in block.text.split("\n") if twice else [block.text]:
        config = Config.model_validate({"name": "part", "rounds": 1, **yaml.safe_load(part)})
        for plugin, resolve in (
            (config.strategy, resolve_strategy),
            (config.client, resolve_client),
        ):
            if ":" not in plugin.name and plugin.name not in ("my_method", "my_loss"):
                resolve(config)


@pytest.mark.parametrize("block", of("toml"))
def test_toml_blocks_can_be_read(block):
    assert tomllib.loads(block.text)


def test_every_block_says_what_it_is():
    wrong = [f"{b.page}: {b.text[:60]!r}" for b in BLOCKS if b.language not in LANGUAGES]
    assert not wrong


def test_no_command_hides_in_an_indented_block():
    """They would not be run: commands stand in blocks marked as bash."""
    command = re.compile(r"^ {4}(?:fedlt|pip|python3?|pytest|bash) [\w./-]", re.MULTILINE)
    assert {str(p.relative_to(ROOT)): command.findall(prose_of(p)) for p in PAGES} == {
        str(p.relative_to(ROOT)): [] for p in PAGES
    }


def test_the_list_of_blocks_that_are_not_run_is_current():
    assert set(NOT_RUN) <= {key(block) for block in BLOCKS}


def mentions() -> list[tuple[str, str]]:
    """Return every command of fedlt that stands in a sentence, a table or a synopsis."""
    found = []
    for path in PAGES:
        page = str(path.relative_to(ROOT))
        found += [(page, text) for text in re.findall(r"`(fedlt [^`]+)`", prose_of(path))]
    for block in BLOCKS:
        if block.language == "text":
            lines = [line for line in block.text.split("\n") if line.startswith("fedlt ")]
            found += [(block.page, line) for line in lines]
    return found


def test_mentioned_commands_and_options_exist():
    verbs = typer.main.get_command(app).commands
    wrong = []
    for page, text in mentions():
        verb = text.split()[1]
        if verb == "VERB" or verb.startswith("-"):
            continue
        if verb not in verbs:
            wrong.append(f"{page}: {text}")
            continue
        known = {name for parameter in verbs[verb].params for name in parameter.opts}
        wrong += [f"{page}: {text}" for flag in re.findall(r"--[a-z-]+", text) if flag not in known]
    assert not wrong
