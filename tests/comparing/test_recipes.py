"""Recipes: how they are read, what wrong ones are answered with, and the verdict of a cell."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import pytest

from fedlt.cli import main
from fedlt.comparing.comparison import read_comparison
from fedlt.comparing.recipes import Figure, read_recipe, seeds_of
from fedlt.comparing.reproduction import (
    figures_csv,
    judge,
    markdown,
    reproduced,
    sources,
    summary,
)
from fedlt.comparing.statistics import Interval
from fedlt.config import load_config
from fedlt.errors import FedltError

BASE = """
name: tiny
seeds: [7, 9]
rounds: 4
data: {dataset: synthetic, imbalance_factor: 4}
partition: {num_clients: 3}
model: {name: mlp, width: 8}
local: {lr: 0.3, batch_size: 16}
engine: {name: serial}
compare:
  rows:
    FedAvg: {}
    FedProx: {strategy: {name: fedprox, mu: 0.1}}
"""
RECIPE = """
reproduce:
  about: a made-up paper
  settings: {a: {data.imbalance_factor: 2}, b: {data.imbalance_factor: 8}}
  scales:
    cpu:
      purpose: to see that it runs
      limits: says nothing
      seeds: 1
      set: {rounds: 2, local.lr: 0.1}
      rows: {FedProx: {strategy.mu: 0.5}}
  tolerances: chosen by hand
  deviations: [none of note]
  missing: most of it
  figures:
    - {row: FedAvg, metric: generic/accuracy, moment: last_k, unit: percent, tolerance: 2.0,
       source: table 1, values: {a: 80.0, b: 70.0}}
    - {row: FedAvg, metric: personal/accuracy, moment: final, unit: percent, tolerance: 2.0,
       source: log 3, differs: it is masked, values: {a: 90.0}}
"""
PLAIN = """
reproduce:
  about: one setting
  figures:
    - {row: FedAvg, metric: generic/nll, moment: final, unit: number, tolerance: 0.5,
       source: table 2, value: 1.5}
"""


@pytest.fixture
def file(tmp_path):
    def write(text=RECIPE):
        path = tmp_path / "r.yaml"
        path.write_text(BASE + text, encoding="utf-8")
        return path

    return write


# ---- reading


def test_figures_are_read_one_a_setting(file):
    recipe = read_recipe(file())
    assert recipe.figures == (
        Figure("a", "FedAvg", "generic/accuracy", "last_k", 80.0, "percent", 2.0, "table 1"),
        Figure("b", "FedAvg", "generic/accuracy", "last_k", 70.0, "percent", 2.0, "table 1"),
        Figure(
            "a", "FedAvg", "personal/accuracy", "final", 90.0, "percent", 2.0, "log 3",
            "it is masked",
        ),
    )  # fmt: skip
    assert recipe.notes == (
        "tolerances: chosen by hand",
        "the setting deviates: none of note",
        "no figures: most of it",
    )
    (bare,) = read_recipe(file(PLAIN)).figures
    assert (bare.setting, bare.value, bare.unit) == ("", 1.5, "number")


def test_a_scale_comes_after_the_setting_and_its_rows_last(file):
    recipe = read_recipe(file())
    fedavg, fedprox = recipe.comparison.rows

    def config(row, scale, given=()):
        setting = recipe.grid(scale, ["b"], given)[0]
        overrides = setting.overrides_of(row.label)
        return recipe.comparison.configs(row, *overrides, folder=setting.folder)[0]

    full, cut = config(fedprox, "full"), config(fedprox, "cpu")
    assert (full.rounds, full.local.lr, full.strategy.options) == (4, 0.3, {"mu": 0.1})
    assert (cut.rounds, cut.local.lr, cut.strategy.options) == (2, 0.1, {"mu": 0.5})
    assert (full.data.imbalance_factor, cut.data.imbalance_factor) == (8, 8)
    assert config(fedavg, "cpu").strategy.options == {}
    assert config(fedavg, "cpu", ["local.lr=0.7"]).local.lr == 0.7  # the command line is last
    assert full.output.endswith("/tiny/full/b")
    assert cut.output.endswith("/tiny/cpu/b")


def test_more_seeds_than_the_recipe_has_are_counted_on(file):
    recipe = read_recipe(file())
    assert seeds_of(recipe, None) == [7, 9]
    assert seeds_of(recipe, 1) == [7]
    assert seeds_of(recipe, 4) == [7, 9, 10, 11]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("about: a made-up paper", "abuot: x", ["reproduce.abuot: unknown key; nearest: 'about'"]),
        ("missing: most", "lacking: most", ["reproduce.lacking: unknown key"]),
        ("row: FedAvg, metric: generic", "row: FedAgv, metric: generic", ["no", "'FedAvg'"]),
        ("moment: last_k", "moment: lastk", ["figures[1].moment", "'last_k'"]),
        ("moment: last_k", "moment: selected", ["figures[1].moment"]),
        ("unit: percent", "unit: points", ["figures[1].unit", "percent"]),
        ("metric: generic/accuracy", "metric: accuracy", ["figures[1].metric"]),
        ("tolerance: 2.0", "tolerance: -1.0", ["figures[1].tolerance", "-1.0"]),
        ("tolerance: 2.0,", "", ["figures[1].tolerance is missing"]),
        ("source: table 1, ", "", ["figures[1].source is missing"]),
        ("values: {a: 80.0", "values: {z: 80.0", ["no setting 'z'"]),
        ("values: {a: 80.0, b: 70.0}", "value: 3.0", ["expected values"]),
        ("values: {a: 80.0", "values: {a: high", ["values.a", "'high'"]),
        ("limits: says nothing", "", ["scales.cpu.limits is missing"]),
        ("    cpu:", "    full:", ["'full' is the recipe as it is"]),
        ("rows: {FedProx", "rows: {Fedprox", ["scales.cpu.rows", "'FedProx'"]),
        ("set: {rounds: 2", "set: {seeds: 2", ["scales.cpu.set: seeds cannot be set"]),
        ("settings: {a:", "settings: {a/b:", ["cannot name a folder"]),
        ("reproduce:", "reproduced:", ["no section 'reproduce'"]),
    ],
)  # fmt: skip
def test_wrong_recipes_get_one_line_and_code_2(file, capsys, old, new, words):
    assert old in RECIPE
    path = file(RECIPE.replace(old, new, 1))
    assert main(["reproduce", str(path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert all(word in captured.err for word in words), captured.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--scale", "cup"], "nearest: 'cpu'"),
        (["--settings", "c"], "no setting 'c'"),
        (["--rows", "FedProxx"], "nearest: 'FedProx'"),
        (["seeds=[1]"], "give --seeds N"),
        (["local.lrr=1.0"], "local.lrr"),
        (["--seeds", "0"], "--seeds"),
    ],
)
def test_wrong_arguments_get_one_line_and_code_2(file, capsys, arguments, words):
    assert main(["reproduce", str(file()), *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert words in captured.err


def test_other_verbs_say_where_a_recipe_belongs(file):
    for read in (read_comparison, load_config):
        with pytest.raises(FedltError, match="fedlt reproduce FILE runs it"):
            read(file())


# ---- verdicts


FIGURE = Figure("a", "FedAvg", "generic/accuracy", "last_k", 80.0, "percent", 2.0, "table 1")


@pytest.mark.parametrize(
    ("figure", "mean", "as_written", "word"),
    [
        (FIGURE, 82.0, True, "within"),  # the tolerance itself is within
        (FIGURE, 78.0, True, "within"),
        (FIGURE, 82.01, True, "not within"),
        (FIGURE, 77.9, True, "not within"),  # better or worse: both are another figure
        (FIGURE, 80.0, False, "not comparable"),
        (replace(FIGURE, differs="masked"), 80.0, True, "another quantity"),
        (None, 80.0, True, "no figure"),
        (FIGURE, None, True, "not measured"),
    ],
)
def test_the_verdict_of_a_cell(figure, mean, as_written, word):
    ours = None if mean is None else Interval(mean, None)
    assert judge(figure, ours, as_written=as_written) == word


def made_up(generic, personal):
    return [
        {
            "seed": seed,
            "last_k": {"generic/accuracy": one, "personal/accuracy": two},
            "final": {"personal/accuracy": two},
        }
        for seed, (one, two) in enumerate(zip(generic, personal, strict=True), start=1)
    ]


def test_cells_of_made_up_results(file):
    """0.80 and 0.82 have mean 81, s = sqrt 2, so t(1, 0.975) s / sqrt 2 = 12.706: 81.0 ± 12.7."""
    recipe = read_recipe(file())
    tables = {
        "a": {"FedAvg": made_up([0.80, 0.82], [0.9, 0.9]), "FedProx": made_up([0.5], [0.6])},
        "b": {"FedAvg": made_up([0.5, 0.5], [0.9, 0.9])},  # FedProx failed
    }
    found = reproduced(recipe, tables, as_written=True)
    words = {(one.setting, one.row, one.metric): one.word for one in found}
    assert words == {
        ("a", "FedAvg", "generic/accuracy"): "within",
        ("a", "FedAvg", "personal/accuracy"): "another quantity",
        ("a", "FedProx", "generic/accuracy"): "no figure",
        ("a", "FedProx", "personal/accuracy"): "no figure",
        ("b", "FedAvg", "generic/accuracy"): "not within",
        ("b", "FedProx", "generic/accuracy"): "not measured",
        ("b", "FedProx", "personal/accuracy"): "not measured",
    }
    assert found[0].ours.mean == pytest.approx(81.0)
    assert found[0].ours.half == pytest.approx(12.706, abs=1e-3)
    assert summary(found, as_written=True).startswith("1 of 2 figures within")
    text = markdown("title", found, recipe.notes)
    row = "| generic/accuracy, last_k | 80.0 | 81.0 ± 12.7 | +1.0 | 2.0 | within |"
    assert row in text.splitlines()
    assert "* source of FedAvg, generic/accuracy, last_k: table 1" in text
    assert "another quantity, FedAvg, personal/accuracy: it is masked" in sources(found)
    first = next(csv.DictReader(io.StringIO(figures_csv("full", found))))
    assert (first["reference"], first["seeds"], first["source"]) == ("80.0", "2", "table 1")
    assert float(first["ours"]) == pytest.approx(81.0)


def test_a_cut_down_version_judges_nothing_however_near(file):
    recipe = read_recipe(file())
    found = reproduced(recipe, {"a": {"FedAvg": made_up([0.8], [0.9])}}, as_written=False)
    assert not {"within", "not within"} & {one.word for one in found}
    assert "nothing here reproduces" in summary(found, as_written=False)


# ---- end to end


def test_a_tiny_recipe_runs_at_both_scales(file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    common = [str(file()), f"output={tmp_path}", "--settings", "a", "--jobs", "1"]
    common += ["data.options={num_classes: 3, image_size: 4, train_per_class: 20}"]
    assert main(["reproduce", *common, "--scale", "cpu"]) == 0
    out, err = capsys.readouterr()
    assert err.index("purpose: to see that it runs") < err.index("1 of 2 runs")
    assert "limits: says nothing" in err
    assert "limits: says nothing" in out
    assert "not comparable" in out
    assert "cut down or changed" in out
    assert len(list((tmp_path / "tiny/cpu/a").rglob("result.json"))) == 2  # 2 rows, 1 seed
    assert main(["reproduce", *common, "--seeds", "3", "--rows", "FedAvg"]) == 0
    out = capsys.readouterr().out
    assert "changed" in out.splitlines()[0]  # data.options is not the recipe's
    results = sorted((tmp_path / "tiny/full/a/fedavg").glob("*/result.json"))
    assert [path.parent.name for path in results] == ["10", "7", "9"]
    mean = sum(json.loads(p.read_text())["last_k"]["generic/accuracy"] for p in results) / 3
    text = (tmp_path / "tiny/full/reproduction.csv").read_text()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert float(rows[0]["ours"]) == pytest.approx(100 * mean)
    assert {row["verdict"] for row in rows} == {"not comparable"}
    assert "| FedAvg" not in (tmp_path / "tiny/full/reproduction.md").read_text()


def test_a_recipe_as_written_is_judged(tmp_path, monkeypatch, capsys):
    """Where things lie and which engine trains them is no change: the verdict stands."""
    monkeypatch.chdir(tmp_path)
    data = "{dataset: synthetic, options: {num_classes: 3, image_size: 4, train_per_class: 20}}"
    text = BASE.replace("{dataset: synthetic, imbalance_factor: 4}", data) + PLAIN
    (tmp_path / "r.yaml").write_text(text.replace("tolerance: 0.5", "tolerance: 100.0"))
    common = ["reproduce", "r.yaml", "--rows", "FedAvg", "--jobs", "1"]
    assert main([*common, "output=out", "engine.name=stacked", "checkpoint.every=2"]) == 0
    assert "1 of 1 figures within tolerance" in capsys.readouterr().out
    (tmp_path / "r.yaml").write_text(text.replace("value: 1.5", "value: 99.0"))
    assert main([*common, "output=out"]) == 0
    out, err = capsys.readouterr()
    assert "2 of 2 runs are finished already" in err
    assert "0 of 1 figures within tolerance" in out
