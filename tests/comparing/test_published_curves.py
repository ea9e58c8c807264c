"""Published curves: distance and jump by hand, the file, and the verdict of a shortened run."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from fedlt.cli import main
from fedlt.comparing.published_curves import (
    Curve,
    distance,
    five_round_means,
    is_part_of,
    read_curves,
)
from fedlt.comparing.recipes import read_recipe
from fedlt.config import Config
from fedlt.config.experiments import experiments_folder, needed_files
from fedlt.errors import FedltError

PLACE = ("", "FedAvg", "generic/accuracy", "percent", "log", "")


def test_means_of_five_rounds():
    """Around 3: (1 + 2 + 3 + 4 + 10) / 5 = 4; around 4: (2 + 3 + 4 + 10 + 6) / 5 = 5."""
    values = {1: 1.0, 2: 2.0, 3: 3.0, 4: 4.0, 5: 10.0, 6: 6.0, 8: 0.0}
    assert five_round_means(values) == {3: 4.0, 4: 5.0}


# Rounds 3 to 7: the source jumps by 2 up and down around means that are all 10.
VALUES = {3: 12.0, 4: 8.0, 5: 12.0, 6: 8.0, 7: 12.0, 9: 10.0}
CURVE = Curve(*PLACE, VALUES, dict.fromkeys(VALUES, 10.0))


def test_distance_and_jump_by_hand():
    """The run's means lie 3, 1, 1, 1, 2 off: mean square 16 / 5. The source's mean square is 4,

    times 5 / 4 it is 5. Round 9 counts for neither: the run has no mean there.
    """
    run = {3: 13.0, 4: 9.0, 5: 11.0, 6: 11.0, 7: 12.0, 8: 50.0}
    rounds, apart, jump = distance(CURVE, [run])
    assert rounds == (3, 4, 5, 6, 7)
    assert apart == pytest.approx(math.sqrt(16 / 5))
    assert jump == pytest.approx(math.sqrt(5))


def test_seeds_are_averaged_before_they_are_compared():
    """One seed 4 above and one 2 above are 3 above in the mean, not sqrt(10)."""
    above = [dict.fromkeys(VALUES, 14.0), dict.fromkeys(VALUES, 12.0)]
    assert distance(CURVE, above)[1] == pytest.approx(3.0)


def test_fewer_than_five_rounds_are_no_curve():
    assert distance(CURVE, [dict.fromkeys((3, 4, 5, 6), 10.0)]) is None
    assert distance(CURVE, []) is None


def test_a_straight_curve_does_not_jump():
    straight = {r: float(r) for r in range(1, 12)}
    means = five_round_means(straight)
    assert means == {r: float(r) for r in range(3, 10)}
    assert distance(Curve(*PLACE, straight, means), [means])[1:] == pytest.approx((0.0, 0.0))


HEAD = "setting,row,metric,round,value,mean\n"


def test_a_file_with_comments_and_without_means(tmp_path):
    """Round 3 of b gets the mean of the values 2, 4, 6, 8, 10; a mean in the file comes first."""
    lines = [f"b,FedAvg,generic/accuracy,{r},{2 * r}," for r in range(1, 6)]
    path = tmp_path / "c.csv"
    path.write_text(f"# from a log\n{HEAD}a,FedAvg,generic/accuracy,7,1.5,2.5\n" + "\n".join(lines))
    a, b = read_curves(path, ["a", "b"], "here")
    assert (a.setting, a.row, a.metric) == ("a", "FedAvg", "generic/accuracy")
    assert (a.values, a.means) == ({7: 1.5}, {7: 2.5})
    assert b.values == {1: 2.0, 2: 4.0, 3: 6.0, 4: 8.0, 5: 10.0}
    assert b.means == {3: 6.0}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("round,value\n", "the columns must be setting,row,metric,round,value,mean"),
        ("", "the columns must be"),
        (HEAD + "z,FedAvg,generic/accuracy,1,2,\n", "line 2: no setting 'z'"),
        (HEAD + "a,FedAvg,generic/accuracy,1,high,\n", "line 2: expected a round and numbers"),
        (HEAD + "a,FedAvg,generic/accuracy,1.5,2,\n", "line 2: expected a round and numbers"),
        (HEAD + "a,FedAvg,generic/accuracy,0,2,\n", "a round from 1 on"),
        (HEAD + "a,FedAvg,generic/accuracy,1,nan,\n", "finite numbers"),
        (HEAD + "a,FedAvg,generic/accuracy,1\n", "line 2: has 4 columns, not 6"),
        (HEAD + 2 * "a,FedAvg,generic/accuracy,1,2,\n", "line 3: round 1 stands twice"),
        (None, "cannot be read: no file"),
    ],
)
def test_wrong_files_get_one_line(tmp_path, text, reason):
    path = tmp_path / "c.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(FedltError, match=reason) as told:
        read_curves(path, ["a"], "here")
    assert "\n" not in str(told.value)
    assert str(told.value).startswith("here: ")


BASE = """
name: tiny
seeds: [1]
rounds: 9
data: {dataset: synthetic, options: {num_classes: 3, image_size: 4, train_per_class: 8}}
partition: {num_clients: 2}
model: {name: mlp, width: 4}
engine: {name: serial}
evaluate: {personal_every: 9}
compare: {rows: {FedAvg: {}, FedProx: {strategy: {name: fedprox, mu: 0.1}}}}
reproduce:
  about: made up
  scales:
    short: {purpose: to see, limits: few rounds, set: {rounds: 8}}
    other: {purpose: to see, limits: another network, set: {model.width: 5}}
  curves:
    - {row: FedAvg, metric: generic/accuracy, unit: percent, path: c.csv, source: log 7}
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A recipe whose curve is 50 in odd rounds and 0 in even ones, its means 25."""
    monkeypatch.chdir(tmp_path)
    rows = [f",FedAvg,generic/accuracy,{r},{50 * (r % 2)},25\n" for r in range(1, 10)]
    (tmp_path / "c.csv").write_text(HEAD + "".join(rows))
    path = tmp_path / "r.yaml"
    path.write_text(BASE)
    return path


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("path: c.csv", "path: d.csv", r"curves\[1\].path: .*d.csv cannot be read"),
        ("curves:\n    - {row: FedAvg", "curves:\n    - {row: FedAvk", "row: unknown 'FedAvk'"),
        ("row: FedAvg, metric", "row: FedProx, metric", "has no line of FedProx"),
        ("unit: percent", "unit: points", "unit: unknown 'points'"),
        ("source: log 7", "sources: log 7", r"curves\[1\].sources: unknown key; nearest: 'source'"),
    ],
)
def test_wrong_entries_get_one_line(file, old, new, reason):
    assert old in BASE
    file.write_text(BASE.replace(old, new))
    with pytest.raises(FedltError, match=reason) as told:
        read_recipe(file)
    assert "\n" not in str(told.value)


def test_a_shortened_run_is_judged_and_another_network_is_shown(file, capsys):
    """Rounds 3 to 7 of 9 are a curve; 3 to 6 of 8 are too few."""
    words = ["reproduce", "r.yaml", "--jobs", "1", "--rows", "FedAvg"]
    assert main(words) == 0
    out = capsys.readouterr().out
    written = Path("runs/tiny/full/reproduction.md").read_text()
    assert "| generic/accuracy, curve, 5 rounds from 3 to 7 | - | - | " in written
    text = Path("runs/tiny/full/reproduction.csv").read_text()
    line = next(one for one in csv.DictReader(io.StringIO(text)) if one["moment"] == "curve")
    # |v - m| is 25 in every round: the jump is 25 sqrt(5 / 4).
    assert float(line["tolerance"]) == pytest.approx(25 * math.sqrt(1.25))
    text = Path("runs/tiny/full/fedavg/1/rounds.jsonl").read_text()
    rounds = [json.loads(one) for one in text.splitlines()]
    ours = [100 * row["generic/accuracy"] for row in rounds]
    means = [sum(ours[r - 3 : r + 2]) / 5 for r in range(3, 8)]
    expected = math.sqrt(sum((mean - 25) ** 2 for mean in means) / 5)
    assert float(line["distance"]) == pytest.approx(expected)
    word = "within" if expected <= 25 * math.sqrt(1.25) else "not within"
    assert (line["rounds"], line["verdict"]) == ("3 4 5 6 7", word)
    assert f"{int(word == 'within')} of 1 curves within tolerance" in out
    assert main([*words, "--scale", "short"]) == 0
    written = Path("runs/tiny/short/reproduction.md").read_text()
    assert "| generic/accuracy, curve | - | - | - | - | not measured |" in written
    assert "five rounds or more" in capsys.readouterr().out
    assert main([*words, "rounds=10", "output=longer"]) == 0
    out = capsys.readouterr().out
    assert "1 curves within tolerance" in out
    assert "cut down or changed" in out  # of the figures
    assert main([*words, "--scale", "other"]) == 0
    out = capsys.readouterr().out
    assert "not comparable" in out
    assert "curves within" not in out


def test_what_is_part_of_a_recipe():
    """Length, evaluated rounds and precision may differ, but for a schedule over all rounds."""
    whole = Config.model_validate({"name": "a", "rounds": 9, "local": {"lr": 0.1}})
    local = whole.local
    part = whole.model_copy(
        update={
            "rounds": 3,
            "local": local.model_copy(update={"precision": "bfloat16"}),
            "evaluate": whole.evaluate.model_copy(update={"personal_every": 3}),
        }
    )
    assert is_part_of(part, whole)
    faster = part.model_copy(update={"local": local.model_copy(update={"lr": 0.2})})
    assert not is_part_of(faster, whole)
    assert not is_part_of(part.model_copy(update={"seed": 2}), whole)
    cosine = {"local": {"lr": 0.1, "schedule": "cosine"}}
    falling = Config.model_validate({"name": "a", "rounds": 9, **cosine})
    assert is_part_of(falling, falling)
    assert not is_part_of(falling.model_copy(update={"rounds": 3}), falling)


def test_the_curves_of_fedloge_are_read_and_copied():
    """Setting b of the table: 37.18 and 29.95 in round 30, 60.98 and 55.97 in round 100."""
    path = experiments_folder() / "paper/fedloge.yaml"
    recipe = read_recipe(path)
    assert needed_files(path) == [Path("fedloge_trajectories.csv")]
    found = {(one.setting, one.row): one for one in recipe.curves}
    assert set(found) == {(s, row) for s in "abcdefgh" for row in ("FedAvg", "FedLoGe")}
    fedavg, fedloge = found["b", "FedAvg"], found["b", "FedLoGe"]
    assert fedloge.metric == "generic/sse_c/accuracy"
    assert [one.values[30] for one in (fedavg, fedloge)] == [37.18, 29.95]
    assert [one.values[100] for one in (fedavg, fedloge)] == [60.98, 55.97]
    # The curve lies on itself, and jumps by less than two points.
    rounds, apart, jump = distance(fedavg, [fedavg.means])
    assert rounds[0] == 3
    assert apart == 0
    assert 0.5 < jump < 2
    assert distance(replace(fedavg, means={}), [fedavg.means]) is None


@pytest.mark.parametrize(
    ("scale", "judged"), [("full", True), ("bfloat16", True), ("resnet8", False), ("cpu", False)]
)
def test_the_scales_whose_curves_are_judged(scale, judged):
    recipe = read_recipe(experiments_folder() / "paper/fedloge.yaml")
    for cut, whole in zip(recipe.grid(scale, ["b"]), recipe.grid("full", ["b"]), strict=True):
        for row in recipe.comparison.rows:
            mine = recipe.comparison.configs(row, *cut.overrides_of(row.label))
            theirs = recipe.comparison.configs(row, *whole.overrides_of(row.label))
            assert is_part_of(mine[0], theirs[0]) == judged
