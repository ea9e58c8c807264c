"""The table of metrics against its page and against what runs write, in both directions."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import numpy as np
import pytest

from fedlt.evaluation.metrics import METRICS, heading_of, spec_of
from fedlt.evaluation.priors import prior_metrics

PAGE = Path(__file__).parents[2] / "docs/metrics.md"
TABLE = re.compile(r"^\| name.*\| definition \| range \|\n\| --- .*\n((?:\|.*\n)+)", re.MULTILINE)
NO_METRICS = {"round", "run", "seconds"}  # of a line of rounds.jsonl
BLOCKS = f"{Path(__file__).with_name('test_rank.py')}:Stack"


SMALL = {"name": "mlp", "width": 8, "norm": "none"}
PRIVATE = {"norm": 1.0, "delta": 1e-3}


def page_names() -> list[str]:
    """Return the names of the page's tables, whole."""
    names = []
    for table in TABLE.finditer(PAGE.read_text(encoding="utf-8")):
        start = "diagnostics/" if "diagnostics/" in table[0].partition("\n")[0] else ""
        for row in table[1].splitlines():
            names += [f"{start}{name}" for name in re.findall("`([^`]+)`", row.split("|")[1])]
    return names


def test_the_page_and_the_table_have_the_same_names():
    assert sorted(page_names()) == sorted(one.name for one in METRICS)


@pytest.fixture(scope="module")
def written(lab_factory):
    """The names that runs with all diagnostics on write, and those of other test priors."""
    lab = lab_factory("metrics")
    looked = {"diagnostics": {"every": 1}, "evaluate": {"shots": "rank"}}
    reference = {"evaluate": {"shots": "rank", "local_test": "reference"}}
    wrong = {"faults": {"late": {"share": 0.5}}, "rounds": 2}
    wide = {"model": {"name": "mlp", "width": 64}}
    runs = [
        lab.run(strategy="fedloge", **wide, **looked, **wrong),
        lab.run(client="mdcs", **looked),
        lab.run(model={"name": BLOCKS}, **looked),
        lab.run(**reference),
        lab.run(model=SMALL, privacy=PRIVATE | {"noise_multiplier": 0.5}),
        lab.run(model=SMALL, privacy=PRIVATE | {"noise_multiplier": 0.5, "mechanism": "sample"}),
    ]
    names = {name for run in runs for row in run.rows for name in row} - NO_METRICS
    counts, recalls = np.ones(2, dtype=np.int64), np.ones((1, 2))
    confusion = np.eye(2, dtype=np.int64)
    priors = prior_metrics(counts, confusion=confusion, client_recalls=recalls, test_counts=counts)
    return names | set(priors)


def test_every_name_that_a_run_writes_is_in_the_table(written):
    assert [name for name in written if spec_of(name) not in METRICS] == []


def test_every_line_of_the_table_is_written_by_some_run(written):
    known = {spec_of(name).name for name in written}
    assert [one.name for one in METRICS if one.name not in known] == []


def test_every_line_says_where_it_is_computed_and_what_it_means():
    for one in METRICS:
        where = one.of if isinstance(one.of, str) else one.of.__module__
        assert importlib.import_module(where)
        assert one.heading
        assert re.fullmatch(r"[A-Z].*\.", one.meaning)


@pytest.mark.parametrize(
    ("name", "heading"),
    [
        ("personal/few_clients", "with few"),
        ("generic/aux/many", "many"),
        ("generic/few_ece", "few"),
        ("generic/under_forward_50", "forward_50"),
        ("made/up", "made/up"),
    ],
)
def test_headings(name, heading):
    assert heading_of(name) == heading
