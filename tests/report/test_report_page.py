"""The page of ``fedlt report``: whole, self-contained, and with the numbers of result.json."""

from __future__ import annotations

import json
import math
import re
import shutil
import statistics
import subprocess

import pytest
from report_pages import parse, table, texts
from sealed import edit, reseal

from fedlt.cli import main
from fedlt.comparing.sheet import spread
from fedlt.errors import FedltError
from fedlt.report.build import write_report
from fedlt.report.facts import runs_sheet, warnings
from fedlt.report.figures.gains import gain_by_size
from fedlt.report.finished import read_runs
from fedlt.report.summary import main_sheet
from fedlt.report.tones import ON_DEEP, ON_PALE

SVG, XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"
MANY = 9  # more methods than one picture has lines for


@pytest.fixture(scope="module")
def page_file(comparison, tmp_path_factory):
    """The page of that comparison."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_report([comparison], path)
    return path


@pytest.fixture(scope="module")
def page(page_file):
    """The page, parsed as strictly as XML is."""
    return parse(page_file)


def results(comparison, name):
    return [json.loads((comparison / name / s / "result.json").read_text()) for s in "12"]


def test_nothing_is_loaded_from_anywhere(page):
    allowed = {"href": "#", f"{XLINK}href": ("#", "data:image/png;base64,")}
    for node in page.iter():
        assert node.tag not in ("script", "link", "iframe", "object")
        assert node.get("src") is None
        for key, start in allowed.items():
            assert node.get(key, "#").startswith(start)
    assert not re.search(r"url\(|@import", page.find("head/style").text)
    policy = next(meta for meta in page.iter("meta") if meta.get("http-equiv"))
    assert policy.get("content").startswith("default-src 'none'")


def test_every_colour_of_a_picture_follows_the_page(page_file):
    """Except numbers on the coloured cells of a map, which keep theirs."""
    text = page_file.read_text(encoding="utf-8")
    paint = set(re.findall(r'(?:fill|stroke)(?:: |=")(#[0-9a-f]+)', text))
    assert paint <= {ON_PALE, ON_DEEP}
    used = set(re.findall(r"var\(--(\w+)\)", text))
    assert used <= set(re.findall(r"--(\w+):", text))
    assert {"page", "ink", "grid", "blue", "vermilion"} <= used


def test_links_lead_somewhere(page):
    names = [node.get("id") for node in page.iter() if node.get("id")]
    assert len(set(names)) == len(names)
    places = [node.get("id") for node in page.iter("h2")]
    assert {a.get("href") for a in page.iter("a")} == {f"#{place}" for place in places}


def test_every_picture_has_words_and_a_table(page):
    body = list(page.find("body"))
    figures = [n for n, node in enumerate(body) if node.tag == "figure"]
    assert len(figures) >= 9
    for n in figures:
        assert len(body[n].find(f"{SVG}svg").get("aria-label")) > 40
        assert body[n - 2].tag == "h2"
        assert body[n - 1].tag == "p"
        assert next(body[n + 1].iter("tbody")).findall("tr")


@pytest.mark.parametrize(
    ("heading", "metric"),
    [
        ("generic all", "generic/accuracy"),
        ("few", "generic/few"),
        ("personal mean", "personal/accuracy"),
        ("p10", "personal/p10"),
        ("gain", "personal/gain"),
        ("worse off", "personal/hurt"),
    ],
)
def test_the_table_has_the_numbers_of_the_results(page, comparison, heading, metric):
    headings, rows = table(page, "Both views, primary heads")
    for row, name in zip(rows, ("fed-rod", "fedavg"), strict=True):
        expected = statistics.fmean(r["last_k"][metric] for r in results(comparison, name))
        assert row[headings.index(heading)] == expected


def test_methods_have_the_names_and_the_order_of_the_table(page):
    _, rows = table(page, "Both views, primary heads")
    assert [row[0] for row in rows] == ["Fed ROD", "FedAvg"]


def test_curves_have_the_numbers_of_the_rounds(page, comparison):
    _, rows = table(page, "Generic model, balanced test set")
    files = [comparison / "fedavg" / seed / "rounds.jsonl" for seed in "12"]
    lines = [[json.loads(line) for line in file.read_text().splitlines()] for file in files]
    expected = [
        [
            "FedAvg",
            str(a["round"]),
            statistics.fmean((a["generic/accuracy"], b["generic/accuracy"])),
        ]
        for a, b in zip(*lines, strict=True)
    ]
    assert [row[:3] for row in rows if row[0] == "FedAvg"] == expected


def test_diagnostics_have_the_numbers_of_the_rounds(page, comparison):
    headings, rows = table(page, "Diagnostics")
    mine = {int(row[1]): row for row in rows if row[0] == "FedAvg"}
    assert sorted(mine) == [2, 3]
    finals = [r["final"] for r in results(comparison, "fedavg")]
    for metric in ("nc1", "drift_norm", "tail_gradient"):
        expected = statistics.fmean(final[f"diagnostics/{metric}"] for final in finals)
        assert mine[3][headings.index(metric)] == expected
    assert [row[0] for row in table(page, "Class vectors")[1]][-1] == "FedAvg: head"


def test_clients_add_up_to_the_result(comparison):
    """A_k and gain_k are re-cut from saved counts; their means stand in result.json."""
    for method in read_runs([comparison]).methods:
        for run in method.runs:
            final, clients = run.result["final"], run.clients
            assert clients.accuracy.mean() == pytest.approx(final["personal/accuracy"], abs=1e-12)
            assert clients.generic.mean() == pytest.approx(final["personal/generic"], abs=1e-12)
            assert clients.gain.mean() == pytest.approx(final["personal/gain"], abs=1e-12)
            owners = clients.gain[clients.owns_few].mean()
            assert owners == pytest.approx(final["personal/gain_few_owners"], abs=1e-12)
            assert run.generic_recalls.mean() == pytest.approx(final["generic/balanced"])


def test_what_was_equal_and_what_was_not(page, comparison):
    equal = dict(table(page, "Held equal")[1])
    assert equal["rounds"] == str(results(comparison, "fedavg")[0]["rounds"])
    assert "strategy.name" not in equal
    _, rows = table(page, "Not equal")
    assert [row[0] for row in rows] == ["Fed ROD", "FedAvg"]
    assert "strategy.name: fedrod" in rows[0][1]
    assert [row[2] for row in rows] == ["-", "-"]


def test_runs_name_partition_prior_and_versions(page, comparison):
    headings, rows = table(page, "Every run")
    assert len(rows) == 4
    expected = results(comparison, "fed-rod")[0]["partition_hash"]
    assert expected.startswith(rows[0][headings.index("partition")])
    priors = {row[0]: row[headings.index("class prior")] for row in rows}
    assert priors == {"Fed ROD": "local_masked", "FedAvg": "-"}
    assert {"torch", "cpu", "cores", "engine"} <= {
        row[0] for row in table(page, "Versions and hardware")[1]
    }


def test_weights_are_said_below_the_runs(lab):
    """A second run begins with the first; both lines of notes stand below the table once."""
    first = lab.run(rounds=1)
    assert len(runs_sheet(read_runs([first.directory.path])).notes) == 1
    second = lab.run(rounds=1, model={"weights": str(first.directory.path)})
    notes = runs_sheet(read_runs([second.directory.path])).notes
    assert notes[1:] == second.result["weights"]
    assert notes[1].startswith(f"weights of {first.directory.path}: ")


def test_too_few_seeds_are_said(page):
    assert any("no difference is called real under 5 seeds" in line for line in texts(page, "li"))


def test_references_masks_and_numbers_of_clients_stand_beside_the_personal_view(page, comparison):
    headings, rows = table(page, "Beside the personal view")
    last = [r["last_k"] for r in results(comparison, "fedavg")]
    for heading, metric in [
        ("generic model", "personal/generic"),
        ("masked", "personal/accuracy_held"),
        ("clients with many", "personal/many_clients"),
        ("local steps", "personal/steps"),
        ("clients seen", "train/coverage"),
    ]:
        expected = statistics.fmean(one[metric] for one in last)
        assert rows[1][headings.index(heading)] == pytest.approx(expected)
    guess = statistics.fmean(one["personal/majority_guess"] for one in last)
    assert any(f"largest class: {100 * guess:.1f}." in text for text in texts(page, "p"))


def test_a_number_that_some_seed_does_not_have_is_a_dash():
    assert spread([0.5, math.nan]).text == "-"
    assert spread([0.5, 0.7]).value == pytest.approx(0.6)


def test_without_class_groups_nobody_owns_rare_classes(lab, tmp_path):
    lab.run(name="ditto", strategy="ditto", data={"imbalance_factor": 1.0})
    (picture,) = gain_by_size(read_runs([lab.output]).methods)
    (legend,) = picture.figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["client", "the generic model"]


@pytest.mark.usefixtures("without_pictures")
def test_what_a_reader_must_know_is_said(comparison, tmp_path):
    """Another partition, a clock, a left-out update, a run that is not finished."""
    shutil.copytree(comparison, tmp_path / "c")
    changes = {"partition_hash": "0" * 64, "excluded": [[1, 3]], "faults": {"lost": 2}}
    edit(tmp_path / "c/fedavg/1/result.json", changes)
    edit(tmp_path / "c/fedavg/2/environment.json", {"cpu": "another"})
    config = tmp_path / "c/fed-rod/2/config.yaml"
    config.write_text(config.read_text().replace("batchnorm: average", "batchnorm: local"))
    reseal(config.parent)
    shutil.copytree(tmp_path / "c/fedavg/1", tmp_path / "c/fedavg/3")
    (tmp_path / "c/fedavg/3/result.json").unlink()
    write_report([tmp_path / "c"], tmp_path / "page.html")
    said = " ".join(texts(parse(tmp_path / "page.html"), "li"))
    for words in (
        "other images from method to method in seeds 1.",
        "FedAvg: 1 updates of clients were left out",
        "FedAvg: faults happened: 2 lost.",
        "differ in more than themselves: batchnorm",
        "different machines or versions",
        f"Not finished, left out: {tmp_path}/c/fedavg/3.",
    ):
        assert words in said


def test_runs_that_cannot_stand_side_by_side_are_refused(comparison, tmp_path):
    shutil.copytree(comparison, tmp_path / "c")
    path = tmp_path / "c/fedavg/1/result.json"
    shots = json.loads(path.read_text())["shots"]
    edit(path, {"shots": shots | {"many": shots["few"], "few": shots["many"]}})
    with pytest.raises(FedltError, match="'FedAvg' and 'Fed ROD' differ in shots"):
        read_runs([tmp_path / "c"])
    edit(path, {"shots": shots})
    config = tmp_path / "c/fedavg/2/config.yaml"
    config.write_text(config.read_text().replace("profile: exponential", "profile: step"))
    reseal(config.parent)
    with pytest.raises(FedltError, match=r"'FedAvg' and 'Fed ROD' differ in data\.profile"):
        read_runs([tmp_path / "c"])


def test_a_seed_that_is_there_twice_is_no_second_seed(comparison, tmp_path):
    shutil.copytree(comparison / "fedavg", tmp_path / "fedavg")
    shutil.copytree(comparison / "fedavg/1", tmp_path / "fedavg/copy")
    with pytest.raises(FedltError, match="has two runs with seed 1; name one of them"):
        read_runs([tmp_path / "fedavg"])


@pytest.mark.parametrize("content", ["[]", "{", None])
def test_a_damaged_environment_is_named(comparison, tmp_path, content):
    shutil.copytree(comparison, tmp_path / "c")
    (tmp_path / "c/aa.csv").write_bytes(b"\xff\xfe\x00")  # somebody's own: not read as a table
    assert [one.label for one in read_runs([tmp_path / "c"]).methods] == ["Fed ROD", "FedAvg"]
    path = tmp_path / "c/fedavg/1/environment.json"
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(FedltError, match=r"fedavg/1/environment\.json"):
        read_runs([tmp_path / "c"])


@pytest.mark.slow
def test_many_methods_and_figures(comparison, tmp_path):
    """More methods than lines: panels and maps instead, each picture as PNG and SVG."""
    for n in range(MANY):
        shutil.copytree(comparison / "fedavg", tmp_path / f"c/method-{n}")
    written = write_report([tmp_path / "c"], tmp_path / "page.html", figures=tmp_path / "figures")
    assert {"curves-generic.png", "classes-personal.svg", "price.png"} <= {p.name for p in written}
    assert all(path.read_bytes()[:4] in (b"\x89PNG", b"<?xm") for path in written[1:])
    rows = table(parse(tmp_path / "page.html"), "Both views, primary heads")[1]
    assert [row[0] for row in rows] == [f"method-{n}" for n in range(MANY)]


def test_one_run(comparison, tmp_path, capsys):
    path = tmp_path / "page.html"
    assert main(["report", str(comparison / "fedavg/1"), "--output", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}\n"
    page = parse(path)
    assert texts(page, "h1") == ["How well does FedAvg serve everybody, and each client?"]
    assert any(line.startswith("One seed:") for line in texts(page, "li"))


def test_the_same_runs_give_the_same_page(comparison, page_file, tmp_path):
    write_report([comparison], tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == page_file.read_bytes()


def test_a_folder_without_runs_is_one_line(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 2
    assert "holds no run" in capsys.readouterr().err


def test_a_method_without_generic_model_has_dashes(lab, tmp_path):
    lab.run(name="fedproto", strategy="fedproto")
    write_report([lab.output], tmp_path / "page.html")
    sheet = main_sheet(read_runs([lab.output]).methods)
    assert sheet.rows[0][1].text == "-"


def test_a_warning_that_begins_with_a_key_keeps_its_small_letter(lab):
    lab.run(name="masked", evaluate={"local_test": "reference"})
    found = warnings(read_runs([lab.output]))
    assert [line for line in found if line.startswith("evaluate.local_test: reference ")]


def test_verdicts_over_one_seed_say_one_seed(lab, tmp_path):
    for strategy in ("fedavg", "fedrod"):
        lab.run(name=strategy, strategy=strategy)
    write_report([lab.output], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "paired over 1 seed: " in page
    assert "1 seeds" not in page


BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.mark.slow
def test_a_browser_shows_the_page(comparison, tmp_path):
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip("no Chromium here")
    page, picture = tmp_path / "page.html", tmp_path / "page.png"
    write_report([comparison], page)
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1100,4000"]
    where = [f"--user-data-dir={tmp_path}/profile", f"--screenshot={picture}"]
    command = [browser, *options, *where, page.as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=250)
    from PIL import Image

    with Image.open(picture) as shown:
        grey = shown.convert("L").resize((11, 40))
    inked = [sum(grey.getpixel((x, y)) < 250 for x in range(11)) for y in range(40)]
    assert sum(count > 0 for count in inked) > 25  # text and pictures from top to bottom
