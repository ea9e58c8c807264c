"""The verdicts on the page of ``fedlt report``."""

from __future__ import annotations

import json
import shutil

import pytest
from report_pages import parse, row_of, table, texts
from sealed import edit

from fedlt.cli import main
from fedlt.comparing.verdicts import verdicts
from fedlt.report.build import write_report
from fedlt.report.finished import read_runs

pytestmark = pytest.mark.usefixtures("without_pictures")


def with_five_seeds(comparison, folder, gains):
    """Write both methods with seeds 1 to 5: FedAvg right on half, the other on so much more."""
    folder.mkdir()
    shutil.copy(comparison / "last_k.csv", folder / "last_k.csv")
    for name, shifts in (("fedavg", [0.0] * 5), ("fed-rod", gains)):
        for seed, shift in enumerate(shifts, start=1):
            run = folder / name / str(seed)
            shutil.copytree(comparison / name / "1", run)
            result = json.loads((run / "result.json").read_text())
            last = result["last_k"] | {"generic/accuracy": 0.5 + shift, "personal/accuracy": 0.6}
            edit(run / "result.json", {"seed": seed, "last_k": last})
    return folder


def test_verdicts_stand_on_the_page(comparison, tmp_path):
    """Differences of 1 to 5 points: t = 3 sqrt(5) / 1.5811 = 4.2426, p 0.0132 at 4 degrees of
    freedom (a table of t), doubled by Holm's correction over two views.
    """
    folder = with_five_seeds(comparison, tmp_path / "c", [0.01, 0.02, 0.03, 0.04, 0.05])
    write_report([folder], tmp_path / "page.html", against="FedAvg")
    page = parse(tmp_path / "page.html")
    headings, rows = table(page, "Verdicts")
    generic, personal = (dict(zip(headings, row, strict=True)) for row in rows)
    assert (generic["method"], generic["verdict"]) == ("Fed ROD", "better")
    assert generic["difference"] == pytest.approx(0.03)
    assert generic["p"] == pytest.approx(2 * 0.0132, abs=1e-4)
    assert personal["verdict"] == "not different"
    said = " ".join(texts(page, "li"))
    assert "over 5 seeds, one model for everybody: better Fed ROD (+3.0 points)." in said
    assert "each client's own model: no difference shown for Fed ROD (+0.0 points)." in said


def test_verdicts_of_a_grid_are_those_of_its_command(comparison, tmp_path):
    """Two settings, each with two views: m = 4 in Holm's correction on both pages."""
    folder = with_five_seeds(comparison, tmp_path / "c", [0.01, 0.02, 0.03, 0.04, 0.05])
    results = {m.label: m.results for m in read_runs([folder]).methods}
    found = verdicts({"x=1": results, "x=2": results}, "last_k", "FedAvg")
    write_report([folder], tmp_path / "page.html", found=[v for v in found if v.setting == "x=1"])
    headings, rows = table(parse(tmp_path / "page.html"), "Verdicts")
    generic = dict(zip(headings, rows[0], strict=True))
    assert generic["p"] == pytest.approx(4 * 0.0132, abs=2e-4)
    assert generic["verdict"] == "not different"


def test_a_generic_model_that_does_not_exist_is_marked_wherever_it_is_judged(comparison, tmp_path):
    folder = with_five_seeds(comparison, tmp_path / "c", [0.01, 0.02, 0.03, 0.04, 0.05])
    for seed in range(1, 6):
        edit(folder / f"fed-rod/{seed}/result.json", {"generic_model": "average"})
    write_report([folder], tmp_path / "page.html", against="FedAvg")
    page = parse(tmp_path / "page.html")
    assert "better Fed ROD (~+3.0 points)" in " ".join(texts(page, "li"))
    beside = dict(zip(*(part[:5] for part in row_of(page, "Fed ROD")), strict=True))
    assert beside["generic model"].startswith("~")


def test_no_verdict_where_methods_cannot_be_compared(comparison, tmp_path):
    folder = with_five_seeds(comparison, tmp_path / "c", [0.1] * 5)
    edit(folder / "fedavg/3/result.json", {"partition_hash": "0" * 64})
    write_report([folder], tmp_path / "page.html")
    assert any("No verdict: 'FedAvg' and 'Fed ROD' differ" in t for t in page_texts(tmp_path))
    for seed in (1, 2, 3, 4, 5):
        shutil.rmtree(folder / ("fedavg" if seed > 2 else "fed-rod") / str(seed))
    write_report([folder], tmp_path / "page.html")
    assert "No verdict: the methods have no seed in common." in page_texts(tmp_path)


def page_texts(folder):
    return texts(parse(folder / "page.html"), "p")


def test_an_unknown_reference_is_one_line(comparison, tmp_path, capsys):
    command = ["report", str(comparison), "--output", str(tmp_path / "page.html")]
    assert main([*command, "--against", "FedAgv"]) == 2
    assert "against: no row 'FedAgv'; nearest: 'FedAvg'" in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()
