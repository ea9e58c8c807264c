"""The measured tables of docs/ are those of the results that lie in the repository."""

from __future__ import annotations

import importlib.util
import json

import pytest
from doc_blocks import ROOT
from kept_runs import write_kept


@pytest.fixture(scope="module")
def tables():
    spec = importlib.util.spec_from_file_location("tables", ROOT / ".ci/tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def results(tables, tmp_path, monkeypatch):
    """A folder of results with two comparisons of three seeds."""
    monkeypatch.setattr(tables, "RESULTS", tmp_path / "results")
    write_kept(tmp_path / "results/one", {"FedAvg": [(0.25, 0.5, 0.75)] * 3}, deal="one")
    write_kept(tmp_path / "results/two", {"FedAvg": [(0.5, 0.5, 0.5)] * 3}, deal="two")
    chosen = {
        "values": {"local.lr": 0.5}, "score": 0.61, "searched": ["local.lr"], "trials": 2,
        "tried": [[{"local.lr": 0.1}, 0.4], [{"local.lr": 0.5}, 0.61], [{"local.lr": 2}, None]],
        "failed": 1, "seed": 1, "split": "tune", "rounds": 2,
    }  # fmt: skip
    (tmp_path / "results/one/rates.json").write_text('{"FedAvg": "shared"}')
    (tmp_path / "results/one/tuned.json").write_text(json.dumps({"FedAvg": chosen}))
    return tmp_path / "results"


def page(mark):
    return f"before\n\n<!-- from {mark} -->\nold\n<!-- end -->\n\nafter\n"


def test_every_page_has_the_tables_of_today(tables):
    """``python .ci/tables.py`` brings the pages up to date."""
    found = tables.updated()
    assert [p.name for p, text in found.items() if p.read_text(encoding="utf-8") != text] == []
    board = (ROOT / "docs/leaderboard.md").read_text(encoding="utf-8")
    figures = [line for line in board.split("\n") if line.startswith("![")]
    assert figures
    assert all((ROOT / "docs" / line[line.index("](") + 2 : -1]).is_file() for line in figures)


def test_a_leaderboard_leaves_out_what_is_not_there(tables, results, tmp_path):
    mark = "leaderboard ranks.svg One=one Two=two Three=none"
    text = tables.filled(page(mark), tmp_path)
    assert text.startswith(f"before\n\n<!-- from {mark} -->\n\n| method | One: generic |")
    assert text.endswith("<!-- end -->\n\nafter\n")
    assert "old" not in text
    assert "| Two: generic | few | personal | verdict |\n" in text
    assert "](ranks.svg)" in text
    assert (tmp_path / "ranks.svg").is_file()
    assert tables.filled(text) == text


def test_a_table_has_the_columns_of_accuracies(tables, results):
    text = tables.filled(page("table two final"))
    head = "| method | generic | many | medium | few | personal | p10 | worst | gain | s / run |"
    assert head in text
    assert "| FedAvg | 50.0 ± 0.0 |" in text


def test_searches_are_the_trials_with_the_best_in_bold(tables, results):
    text = tables.filled(page("searches one"))
    assert "| method | tried: score in % |\n| --- | --- |\n" in text
    assert "| FedAvg | lr=0.1: 40.0, **lr=0.5: 61.0**, lr=2: failed |" in text


def test_heads_are_lines_of_their_own(tables):
    """FedLoGe's three generic heads and four personal ones, in the results of the repository."""
    text = tables.filled(page("heads leaderboard-fashion-mnist"))
    found = [line for line in text.split("\n") if line.startswith("| FedLoGe")]
    assert [line.split(" | ")[0] for line in found] == [
        "| FedLoGe", "| FedLoGe, head `sse_c`", "| FedLoGe, head `auxiliary`",
        "| FedLoGe", "| FedLoGe, head `realigned_v2`", "| FedLoGe, head `local`",
        "| FedLoGe, head `auxiliary`",
    ]  # fmt: skip
    assert "| personal |" not in tables.filled(page("heads leaderboard-fashion-mnist generic"))


@pytest.mark.parametrize(
    ("mark", "line"),
    [("board one", "expected leaderboard, table, searches"), ("leaderboard f a=b", "has none of")],
)
def test_a_wrong_mark_is_refused(tables, results, mark, line):
    with pytest.raises(ValueError, match=line):
        tables.filled(page(mark))


def test_a_row_has_the_setting_and_the_seeds_of_its_section(tables):
    table = "| method | generic | s / run |\n| --- | --- | --- |\n| FedAvg | 50.0 | 3 |\n"
    text = f"## Digits: all\n\nWords.\nSeeds 1 to 3.\n\n{table}\n## Other\n\n{table}"
    columns = ("method", "generic")
    assert list(tables.rows_of(text)) == [
        ("Digits, 3 seeds", columns, ("FedAvg", "50.0")),
        ("Other", columns, ("FedAvg", "50.0")),
    ]
