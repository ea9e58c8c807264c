"""Progress below a notebook's cell, shown on a stand-in for IPython that keeps what it is given."""

from __future__ import annotations

import sys
from io import StringIO
from types import ModuleType, SimpleNamespace

import pytest
from rich.console import Console

from fedlt.comparing.display import NotebookRuns, make_runs_progress
from fedlt.progress import Board, LineProgress, NotebookProgress, make_progress


@pytest.fixture
def shown(monkeypatch):
    """Return the pages shown so far; the first one is new, later ones replace it."""
    pages, display = [], ModuleType("IPython.display")
    display.HTML = str
    display.display = lambda page, display_id: (
        pages.append(("new", page)) or SimpleNamespace(update=lambda p: pages.append(("same", p)))
    )
    package = ModuleType("IPython")
    package.get_ipython = lambda: SimpleNamespace(kernel=object())
    package.display = display
    monkeypatch.setitem(sys.modules, "IPython", package)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.setattr(Board, "PAUSE", 0.0)
    return pages


def test_a_run_has_one_bar(shown):
    progress = make_progress(Console(file=StringIO()), "tiny seed 1")
    assert isinstance(progress, NotebookProgress)
    progress.note("first <news>")
    progress.start(4, 1)
    progress.advance(2, "generic 50.0 %")
    progress.advance(3)
    progress.stop()
    assert [kind for kind, _ in shown] == ["new"] + ["same"] * 4
    assert "first &lt;news&gt;" in shown[0][1]
    assert '<progress value="1" max="4"></progress> tiny seed 1: round 1 of 4<' in shown[1][1]
    assert "round 3 of 4, 0:00 left, generic 50.0 %" in shown[-1][1]
    assert "first" in shown[-1][1]


def test_early_updates_are_left_out_but_never_the_last(shown, monkeypatch):
    monkeypatch.setattr(Board, "PAUSE", 1000.0)
    progress = NotebookProgress("many")
    progress.start(100)
    for number in range(1, 101):
        progress.advance(number)
    assert len(shown) == 2
    assert "round 100 of 100" in shown[-1][1]


def test_runs_have_a_bar_each(shown):
    progress = make_runs_progress(Console(file=StringIO()))
    assert isinstance(progress, NotebookRuns)
    progress.begin(["a, seed 1", "b, seed 1"], [3, 3], finished=1)
    progress.advance(0, 0)
    progress.advance(0, 2)
    page = shown[-1][1]
    assert '<progress value="2" max="6"></progress> 1 of 3 runs, 0:00 left' in page
    assert '<progress value="2" max="3"></progress> a, seed 1, round 2' in page
    progress.finish(0, "a, seed 1: done")
    assert "2 of 3 runs, 0:00 left: a, seed 1: done" in shown[-1][1]
    progress.stop()
    assert "a, seed 1, round" not in shown[-1][1]


def test_elsewhere_nothing_changes():
    assert isinstance(make_progress(Console(file=StringIO(), force_terminal=False)), LineProgress)
