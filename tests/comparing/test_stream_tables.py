"""Streams in tables, files, reports and trackers: the numbers of the results, and no verdict."""

from __future__ import annotations

import csv
import io
import json
import statistics

import pytest
from report_pages import parse, table, texts
from rich.console import Console

from fedlt.cli import main
from fedlt.comparing.exports import latex, markdown
from fedlt.comparing.stream_tables import streams_csv
from fedlt.comparing.table import terminal_tables
from fedlt.comparing.verdicts import verdicts
from fedlt.runs.trackers import TRACKERS

WORDS = ("accuracy", "many", "medium", "few")
EXPERTS = ("many_expert", "medium_expert", "few_expert")


def result(seed, **streams):
    """Streams as (accuracy, many, medium, few); the fused head is 0.5 everywhere."""
    figures = {f"{view}/{word}": 0.5 for view in ("generic", "personal") for word in WORDS}
    for name, values in streams.items():
        figures |= {f"generic/{name}/{w}": v for w, v in zip(WORDS, values, strict=True)}
    return {
        "seed": seed,
        "shots": {"few": [1]},
        "split": "final",
        "generic_model": "shared",
        "streams": list(streams),
        "seconds": 1.0,
        "last_k": figures,
    }


RESULTS = {
    "plain": [result(1), result(2)],
    "taught": [
        result(1, cls=(0.4, 0.8, None, 0.1), dist=(0.3, 0.2, None, 0.6)),
        result(2, cls=(0.6, 0.8, None, 0.1), dist=(0.5, 0.2, None, 0.6)),
    ],
}


def test_the_fused_head_comes_first_and_methods_with_one_stream_are_left_out():
    """cls 40, 60: mean 50, t(1, 0.975) s / sqrt(2) = 12.706 x 14.14 / 1.414 = 127.1: over 100."""
    lines = markdown("tiny", "last_k", {"": RESULTS}, []).splitlines()
    start = lines.index("| generic, by stream | all | many | medium | few |")
    assert lines[start + 2 : start + 5] == [
        "| taught: fused | 50.0 ± 0.0 | 50.0 ± 0.0 | 50.0 ± 0.0 | 50.0 ± 0.0 |",
        "| taught: cls | 50.0 ± >100 | 80.0 ± 0.0 | - | 10.0 ± 0.0 |",
        "| taught: dist | 40.0 ± >100 | 20.0 ± 0.0 | - | 60.0 ± 0.0 |",
    ]
    assert len(lines) == start + 6
    text = latex("tiny", "last_k", {"": RESULTS}, [])
    assert text.count("\\begin{tabular}") == text.count("\\end{tabular}") == 2
    assert "taught: dist & $40.0 \\pm >100$ & $20.0 \\pm 0.0$ & - & $60.0 \\pm 0.0$" in text


def test_without_streams_there_is_no_such_table():
    plain = {"plain": RESULTS["plain"]}
    assert "by stream" not in markdown("tiny", "last_k", {"": plain}, [])
    assert streams_csv("last_k", {"": plain}) == ""
    assert "by stream" not in markdown("tiny", "all", {"": RESULTS}, [])


def test_the_terminal_shows_them_below_the_generic_view():
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(terminal_tables(RESULTS, "last_k"))
    text = console.export_text()
    assert "…" not in text
    assert text.index("taught: dist") < text.index("personal")
    assert "50.0±>100" in text


def test_no_verdict_is_about_a_stream():
    found = verdicts({"": RESULTS}, "last_k", "plain")
    assert {(one.row, one.against) for one in found} == {("taught", "plain")}
    assert {one.view for one in found} <= {"generic", "personal"}


def test_the_csv_is_unrounded():
    rows = list(csv.DictReader(io.StringIO(streams_csv("last_k", {"": RESULTS}))))
    assert [(row["seed"], row["stream"]) for row in rows] == [
        ("1", "fused"), ("2", "fused"), ("1", "cls"), ("2", "cls"), ("1", "dist"), ("2", "dist"),
    ]  # fmt: skip
    assert [row["generic/accuracy"] for row in rows[2:4]] == ["0.4", "0.6"]
    assert rows[2]["generic/medium"] == ""


@pytest.fixture(scope="module")
def runs(lab_factory):
    """Two methods, two seeds; one of them has three experts."""
    lab = lab_factory("streams")
    for seed in (1, 2):
        lab.run(name="fedavg", seed=seed)
        lab.run(name="mdcs", client="mdcs", seed=seed)
    return lab.output


def stored(runs):
    return [json.loads((runs / "mdcs" / s / "result.json").read_text())["last_k"] for s in "12"]


def test_the_report_has_the_numbers_of_the_results(runs, tmp_path):
    path = tmp_path / "report.html"
    assert main(["report", str(runs), "--output", str(path)]) == 0
    page = parse(path)
    headings, rows = table(page, "Accuracy by stream")
    assert headings == ["stream", "all", "many", "medium", "few"]
    for row, start in zip(rows, ["generic", *(f"generic/{n}" for n in EXPERTS)], strict=True):
        means = [statistics.fmean(one[f"{start}/{w}"] for one in stored(runs)) for w in WORDS]
        assert row[1:] == means
    assert [row[0] for row in rows] == [f"mdcs: {name}" for name in ("fused", *EXPERTS)]
    assert "Experts and tokens: every stream alone" in texts(page, "h2")
    assert not [row for row in table(page, "Verdicts")[1] if "expert" in str(row)]


def test_a_report_of_models_with_one_stream_has_no_such_picture(runs, tmp_path):
    path = tmp_path / "report.html"
    assert main(["report", str(runs / "fedavg"), "--output", str(path)]) == 0
    assert "by stream" not in path.read_text(encoding="utf-8")


def test_rescore_prints_and_writes_them(runs, tmp_path, capsys):
    folder = tmp_path / "again"
    assert main(["rescore", str(runs), "--output", str(folder)]) == 0
    assert "mdcs: few_expert" in capsys.readouterr().out
    rows = list(csv.DictReader((folder / "last_k_streams.csv").read_text().splitlines()))
    own = [row for row in rows if row["stream"] == "few_expert"]
    assert [float(row["generic/few"]) for row in own] == [
        one["generic/few_expert/few"] for one in stored(runs)
    ]


def test_trackers_are_told(lab, monkeypatch):
    told = []

    class Listener:
        module = "json"

        def __init__(self, folder, config):
            pass

        def log(self, round, values):
            told.append(values)

        def finish(self):
            pass

    monkeypatch.setitem(TRACKERS, "tensorboard", Listener)
    outcome = lab.run(client="mdcs", rounds=1, trackers=["tensorboard"])
    names = [f"generic/{name}/{word}" for name in EXPERTS for word in WORDS]
    row = outcome.rows[-1]
    assert [told[-1].get(name) for name in names] == [row[name] for name in names]
