"""The tables of docs/leaderboard.md are those of the results that lie in the repository."""

from __future__ import annotations

import importlib.util

import pytest
from doc_blocks import ROOT
from kept_runs import write_kept


@pytest.fixture
def leaderboard():
    spec = importlib.util.spec_from_file_location("leaderboard", ROOT / ".ci/leaderboard.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_has_the_tables_of_the_results(leaderboard):
    """``python .ci/leaderboard.py`` brings the page up to date. No results, no page."""
    assert leaderboard.PAGE.exists() == leaderboard.RESULTS.exists()
    if leaderboard.PAGE.exists():
        page = leaderboard.PAGE.read_text(encoding="utf-8")
        assert leaderboard.parts_of(page)
        assert page == leaderboard.updated()
        for name in leaderboard.parts_of(page):
            assert (ROOT / f"docs/figures/{name}.svg").is_file()


def test_a_part_is_filled_word_for_word(leaderboard, tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text("before\n\n<!-- from others -->\nold\n<!-- end of others -->\n\nafter\n")
    write_kept(tmp_path / "results/leaderboard-fashion-mnist-others", {"a": [(0.25, 0.5, 0.75)]})
    monkeypatch.setattr(leaderboard, "PAGE", page)
    monkeypatch.setattr(leaderboard, "RESULTS", tmp_path / "results")
    text = leaderboard.updated(tmp_path)
    assert text.startswith("before\n\n<!-- from others -->\n\n| method | Fashion-MNIST-LT: generic")
    assert "| a | 25.0 | 50.0 | 75.0 | reference |" in text
    assert "](figures/others.svg)" in text
    assert text.endswith("\n<!-- end of others -->\n\nafter\n")
    assert "old" not in text
    assert (tmp_path / "others.svg").is_file()
    page.write_text(text)
    assert leaderboard.updated() == text


def test_a_page_without_the_place_is_refused(leaderboard):
    with pytest.raises(ValueError, match="no place for others"):
        leaderboard.filled("<!-- from others -->\n", {"others": "x"})
