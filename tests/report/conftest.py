"""What tests of the report share."""

from __future__ import annotations

import pytest

from fedlt.report import build

LOOK = {"every": 2, "clients": 2}


@pytest.fixture
def without_pictures(monkeypatch):
    """Pages of text and tables only: drawing takes most of the time of a page."""
    monkeypatch.setattr(build, "all_pictures", lambda methods: [])


@pytest.fixture(scope="session")
def comparison(lab_factory):
    """A folder as ``fedlt compare`` leaves it: two methods, two seeds."""
    lab = lab_factory("comparison")
    for name, strategy in (("fedavg", "fedavg"), ("fed-rod", "fedrod")):
        for seed in (1, 2):
            lab.run(name=name, strategy=strategy, seed=seed, diagnostics=LOOK)
    (lab.output / "last_k.csv").write_text("method,seed\nFed ROD,1\nFedAvg,1\n")
    return lab.output
