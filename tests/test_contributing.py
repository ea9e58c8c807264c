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
METRIC = '''"""The median of the recalls of the classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedlt.data.arrays import IntArray
from fedlt.evaluation.generic import recalls


def mine(confusion: IntArray, classes: Sequence[int] | None = None) -> float | None:
    """Return the median recall of those of ``classes`` (None: all) that have images."""
    seen = recalls(confusion)[slice(None) if classes is None else list(classes)]
    seen = seen[~np.isnan(seen)]
    return float(np.median(seen)) if seen.size else None
'''
TEST_OF_METRIC = '''"""Median recall, by hand and in a run."""

import numpy as np

from fedlt.evaluation.mine import mine


def test_the_middle_of_the_recalls():
    """Recalls are 1/4, 1/2 and 1; a class without images is none of them."""
    counts = np.array([[1, 3, 0, 0], [1, 1, 0, 0], [0, 0, 5, 0], [0, 0, 0, 0]])
    assert mine(counts) == 0.5


def test_a_run_writes_it(reference):
    row = reference().rows[-1]
    assert row["generic/worst_class"] <= row["generic/mine"] <= 1
'''
ROW = """    MetricSpec("generic/mine", "median class", "share", _of_confusion(mine),
        "Median recall of the classes that have test images."),
"""
PAGE = "| `generic/mine` | median recall of the classes that have test images | 0 to 1 |\n"
WRITTEN = {
    "strategies/mine.py": STRATEGY,
    "tests/strategies/test_mine.py": TEST,
    "fedlt/evaluation/mine.py": METRIC,
    "tests/evaluation/test_mine.py": TEST_OF_METRIC,
    "docs/methods/generic/mine.md": "# `mine` (strategy)\n\nFedAvg with a pull.\n",
}
LINES = {  # file -> what is put in, each before the line that begins so
    "strategies/__init__.py": {'        "moon"': '        "mine": "strategies.mine:Mine",\n'},
    "fedlt/evaluation/metrics.py": {
        "from fedlt.evaluation.priors": "from fedlt.evaluation.mine import mine\n",
        '    MetricSpec("generic/nll"': ROW,
    },
    "docs/metrics.md": {"| `generic/nll`": PAGE},
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


def added(what: str, tree: Path) -> tuple[list[str], list[str]]:
    """Copy the repository to ``tree``, and add something by CONTRIBUTING's steps and no others."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    found = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True)
    if found.returncode:
        pytest.skip("no git checkout to copy")
    for name in filter(None, found.stdout.split("\0")):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tree / name)
    written, lines = steps(what)
    for name in written:
        (tree / name).write_text(WRITTEN[name], encoding="utf-8")
    for name in lines:
        text = (tree / name).read_text(encoding="utf-8")
        for before, line in LINES[name].items():
            assert text.count(f"\n{before}") == 1
            text = text.replace(f"\n{before}", f"\n{line}{before}")
        (tree / name).write_text(text, encoding="utf-8")
    run(tree, "ruff", "check", *written, *lines)
    run(tree, "ruff", "format", "--check", *written, *lines)
    return written, lines


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


def passed(tree: Path, picked: str, *names: str) -> set[str]:
    """Return the fast tests without Ray of some files that pass in the copy; none fails."""
    files = [f"tests/{name}.py" for name in names]
    done = run(tree, *PYTEST, "-rp", "-m", "not slow and not ray", "-k", picked, *files)
    return set(re.findall(r"^PASSED \S*::(\w+)", done, flags=re.MULTILINE))


def test_a_method_is_added_by_three_files_and_a_line(tmp_path):
    """What reads every method passes, by default; so do the contracts of the method."""
    written, lines = added("a federated method", tmp_path)
    assert (len(written), len(lines)) == (3, 1)
    picked = "mine or test_layers or test_every_method_has_a_page"
    names = ("test_layers", "test_contracts", "docs/test_site", "config/test_ranges")
    assert passed(tmp_path, picked, *names, "strategies/test_mine") >= {
        "test_every_setting_runs_and_moves_every_trained_tensor",
        "test_a_setting_keeps_every_promise_of_the_kit",
        "test_first_personal_states_are_drawn_by_client_and_seed_or_are_common",
        "test_every_number_has_a_range",
        "test_without_a_pull_it_is_fedavg",
        "test_every_method_has_a_page",
        "test_files_are_short",
    }
    assert "FedAvg with a proximal term." in run(tmp_path, "fedlt", "list", "strategies")


@pytest.mark.slow
def test_a_metric_is_added_by_two_files_and_two_tables(tmp_path):
    written, lines = added("a metric", tmp_path)
    assert (len(written), len(lines)) == (2, 2)
    picked = "mine or test_layers or test_the_page or test_every_line_says"
    names = ("test_layers", "evaluation/test_metric_table", "evaluation/test_mine")
    assert passed(tmp_path, picked, *names) >= {
        "test_the_page_and_the_table_have_the_same_names",
        "test_every_line_says_where_it_is_computed_and_what_it_means",
        "test_the_middle_of_the_recalls",
        "test_a_run_writes_it",
        "test_imports_go_down",
    }


@pytest.mark.slow
@pytest.mark.ray
def test_an_added_method_gives_the_same_bits_on_ray_and_has_types(tmp_path):
    added("a federated method", tmp_path)
    run(tmp_path, *PYTEST, "-m", "ray", "-k", "mine", "tests/test_contracts.py")
    run(tmp_path, "mypy")
