"""CONTRIBUTING.md, followed step by step in a copy of the tree."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NAMES = {"<name>": "mine", "<kind>": "generic"}
STRATEGY = '''"""Mine: FedAvg with a pull towards the received model.

Li et al., Federated optimization in heterogeneous networks, MLSys 2020.
https://arxiv.org/abs/1812.06127
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedlt.config.ranges import NotNegative
from strategies.fedavg import FedAvg

if TYPE_CHECKING:
    from torch import Tensor

    from fedlt.client import Batch, Client


@dataclass(frozen=True)
class Mine(FedAvg):
    """FedAvg with a proximal term."""

    mu: NotNegative = 0.1  # weight of the proximal term

    def objective(self, client: Client, batch: Batch) -> Tensor:
        """Return the loss plus mu/2 |w - w_received|^2."""
        drift = client.squared_distance(client.broadcast)
        return super().objective(client, batch) + 0.5 * self.mu * drift
'''
TEST = '''"""Mine reduces to FedAvg."""


def test_without_a_pull_it_is_fedavg(reference):
    assert reference(strategy={"name": "mine", "mu": 0.0}).bits == reference().bits
'''
WRITTEN = {
    "strategies/mine.py": STRATEGY,
    "tests/strategies/test_mine.py": TEST,
    "docs/methods/generic/mine.md": "# `mine` (strategy)\n\nFedAvg with a pull.\n",
}
LINES = {
    "strategies/__init__.py": ('        "local_only"', '        "mine": "strategies.mine:Mine",\n')
}


def steps(what: str) -> tuple[list[str], list[str]]:
    """Return the files that CONTRIBUTING says to write, and those that get a line."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    cells = next(row for row in rows if row[0] == what)
    for word, name in NAMES.items():
        cells = [cell.replace(word, name) for cell in cells]
    write, line = (re.findall(r"`([\w./]+\.\w+)`", cell) for cell in cells[1:])
    return write, line


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the tree in which a method was added by CONTRIBUTING's steps and no others."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    found = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True)
    if found.returncode:
        pytest.skip("no git checkout to copy")
    copy = tmp_path_factory.mktemp("tree")
    for name in filter(None, found.stdout.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    written, lines = steps("a federated method")
    for name in written:
        (copy / name).write_text(WRITTEN[name], encoding="utf-8")
    for name in lines:
        before, line = LINES[name]
        text = (copy / name).read_text(encoding="utf-8")
        assert text.count(before) == 1
        after = text.index("\n", text.index(before)) + 1
        (copy / name).write_text(text[:after] + line + text[after:], encoding="utf-8")
    return copy


def run(tree: Path, *command: str) -> str:
    """Run a module of Python on the copy's own packages; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree), "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


PYTEST = ("pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist")


def test_a_method_is_added_by_four_files(tree):
    """Three files are written, one gets a line; what reads every method passes, by default."""
    written, lines = steps("a federated method")
    assert (len(written), len(lines)) == (3, 1)
    run(tree, "ruff", "check", *written, *lines)
    run(tree, "ruff", "format", "--check", *written, *lines)
    names = ("test_layers", "test_contracts", "docs/test_site", "config/test_ranges")
    files = [f"tests/{name}.py" for name in (*names, "strategies/test_mine")]
    picked = "mine or test_layers or test_every_method_has_a_page"
    done = run(tree, *PYTEST, "-rp", "-m", "not slow and not ray", "-k", picked, *files)
    tried = set(re.findall(r"^PASSED \S*::(\w+)", done, flags=re.MULTILINE))
    assert tried >= {
        "test_every_setting_runs_and_moves_every_trained_tensor",
        "test_a_setting_keeps_every_promise_of_the_kit",
        "test_first_personal_states_are_drawn_by_client_and_seed_or_are_common",
        "test_every_number_has_a_range",
        "test_without_a_pull_it_is_fedavg",
        "test_every_method_has_a_page",
        "test_files_are_short",
    }
    assert "FedAvg with a proximal term." in run(tree, "fedlt", "list", "strategies")


@pytest.mark.slow
@pytest.mark.ray
def test_an_added_method_gives_the_same_bits_on_ray_and_has_types(tree):
    run(tree, *PYTEST, "-m", "ray", "-k", "mine", "tests/test_contracts.py")
    run(tree, "mypy")
