"""The README is a front page: short, and its screens are what the commands print."""

from __future__ import annotations

import re

import pytest
from doc_blocks import ROOT, blocks_of

from fedlt.cli import main

README = (ROOT / "README.md").read_text()
SCREENS = [b.text.split("\n") for b in blocks_of(ROOT / "README.md") if b.language == "text"]
NUMBER = re.compile(r">100|~?[-+]?\d+\.\d|(?<= )-(?= |$)|─+")
SHORT = ["rounds=1", "evaluate.every=1", "engine.name=serial", "local.epochs=1"]


def shape(lines: list[str]) -> list[str]:
    """Return the lines without what depends on the numbers."""
    return [" ".join(NUMBER.sub("#", line).split()) for line in lines]


def test_it_is_a_page():
    assert len(README.splitlines()) <= 150
    images = re.findall(r'src="(docs/figures/\w+\.svg)"', README)
    assert len(images) == 3
    assert all((ROOT / image).stat().st_size < 150_000 for image in images)


@pytest.mark.slow
def test_its_first_screen_is_what_a_run_prints(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["run", str(ROOT / "experiments/quickstart.yaml"), *SHORT]) == 0
    printed = shape(capsys.readouterr().out.replace(f"{tmp_path}/", "").splitlines())
    assert printed[-len(SCREENS[0]) :] == shape(SCREENS[0])


@pytest.mark.slow
def test_its_comparison_is_what_compare_prints(tmp_path, monkeypatch, capsys):
    """The price and what depends on the numbers is left out there: a verdict and its numbers."""
    monkeypatch.chdir(tmp_path)
    rows = ["--rows", "FedAvg,FedROD,FedRep", "seeds=[1,2]", "--no-report"]
    assert main(["compare", str(ROOT / "experiments/tables/five_digits.yaml"), *rows, *SHORT]) == 0
    printed = shape(capsys.readouterr().out.splitlines())
    tables = shape(SCREENS[1][: SCREENS[1].index("", 6)])
    start = printed.index(tables[0])
    assert printed[start : start + len(tables)] == tables
    verdicts = [line.partition(",")[0].split()[:2] for line in SCREENS[1][len(tables) + 1 :]]
    assert verdicts == [
        line.split()[:2] for line in printed if line.startswith(("generic:", "personal:"))
    ]
