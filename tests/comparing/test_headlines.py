"""The first number of a table, a verdict and a search on test sets that are not balanced."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from fedlt.cli.realign import _best
from fedlt.comparing.cells import columns
from fedlt.comparing.conditions import check_comparable
from fedlt.comparing.exports import csv_text, markdown
from fedlt.comparing.reproduction import reproduced
from fedlt.comparing.schedule import Outcome, PlannedRun, _describe
from fedlt.comparing.sweep import score
from fedlt.comparing.table import footnotes
from fedlt.comparing.verdicts import describe, verdicts
from fedlt.errors import FedltError
from fedlt.evaluation.headline import ScoredSet

UNBALANCED, BALANCED = ScoredSet((90, 5, 5)), ScoredSet((30, 30, 30))
GAPS = (0.0, 0.01, -0.01, 0.005, -0.005)


def result(seed, accuracy, balanced, scored_on=UNBALANCED, **more):
    figures = {"generic/accuracy": accuracy, "generic/balanced": balanced}
    figures["personal/accuracy"] = 0.5
    known = {
        "seed": seed,
        "split": scored_on.split,
        "scored_on": scored_on.to_json(),
        "shots": {"few": [1, 2]},
        "partition_hash": f"deal {seed}",
        "seconds": 1.0,
        "final": figures,
        "last_k": figures,
    }
    return known | more


def rows(scored_on):
    """Five seeds each: Lazy has the higher accuracy, Fair the higher mean recall.

    Differences Fair - Lazy: -0.06 of accuracy, +0.5 of mean recall, give or take a point.
    """
    return {
        "Lazy": [result(seed, 0.98, 1 / 3, scored_on) for seed in range(5)],
        "Fair": [result(seed, 0.92 + gap, 5 / 6 + gap, scored_on) for seed, gap in enumerate(GAPS)],
    }


@pytest.mark.parametrize(
    ("scored_on", "word", "mean", "name"),
    [(BALANCED, "worse", -0.06, "generic"), (UNBALANCED, "better", 0.5, "generic balanced")],
)
def test_the_verdict_is_on_the_headline(scored_on, word, mean, name):
    found = verdicts({"": rows(scored_on)}, "last_k", "Lazy")
    one = next(one for one in found if one.view == "generic")
    assert one.word == word
    assert one.test.difference.mean == pytest.approx(mean)
    assert f"{name}: Fair {word}, " in describe(found)[1]


def test_every_setting_of_a_grid_has_the_headline_of_its_own_test_set():
    found = verdicts({"a": rows(BALANCED), "b": rows(UNBALANCED)}, "last_k", "Lazy")
    words = {(one.setting, one.metric): one.word for one in found if one.view == "generic"}
    assert words == {("a", "generic/accuracy"): "worse", ("b", "generic/balanced"): "better"}
    text = csv_text("last_k", {"a": rows(BALANCED), "b": rows(UNBALANCED)})
    assert {"generic/accuracy", "generic/balanced"} <= set(text.splitlines()[0].split(","))


def test_columns_change_on_unbalanced_sets_only():
    old = ["generic", "many", "medium", "few", "personal", "p10", "worst", "gain"]
    assert list(columns(rows(BALANCED))) == old
    assert list(columns(rows(UNBALANCED))) == ["balanced", "accuracy", *old[1:]]
    assert columns(rows(UNBALANCED))["balanced"] == "generic/balanced"
    assert not [line for line in footnotes({"": rows(BALANCED)}, "last_k") if "balanced" in line]
    assert sum("not balanced" in one for one in footnotes({"": rows(UNBALANCED)}, "last_k")) == 1


def test_the_moments_side_by_side_show_the_headline():
    one = {"Lazy": [result(1, 0.98, 0.25, selected=None, best_on_test={})]}
    priced = {"Lazy": [{**run, "prior": {"use": "global"}} for run in one["Lazy"]]}
    line = markdown("t", "all", {"": priced}, []).splitlines()[4]
    assert line.startswith("| Lazy | 25.0 | 25.0 | - | - | 50.0 |")


def test_a_search_maximises_the_headlines():
    assert score(result(1, 0.98, 0.2)) == pytest.approx((0.2 + 0.5) / 2)
    assert score(result(1, 0.98, 0.2, BALANCED)) == pytest.approx((0.98 + 0.5) / 2)
    neither = {"generic/balanced": None, "personal/accuracy": None}
    assert score(result(1, 0.98, 0.2, last_k=neither)) is None


def test_the_progress_names_the_headline():
    row = {"generic/accuracy": 0.98, "generic/balanced": 0.25, "personal/accuracy": 0.5}
    assert [*UNBALANCED.told(row)] == ["generic balanced 25.0 %", "personal 50.0 %"]
    assert [*BALANCED.told(row)] == ["generic 98.0 %", "personal 50.0 %"]
    cell = PlannedRun("Lazy", SimpleNamespace(seed=1))
    line = _describe(Outcome(cell, result(1, 0.98, 0.25)))
    assert line == "Lazy, seed 1: generic balanced 25.0 %, personal 50.0 %, 1 s"


@pytest.mark.parametrize(("scored_on", "best"), [(BALANCED, 0), (UNBALANCED, 1)])
def test_realign_chooses_a_constant_by_the_headline(scored_on, best):
    """Two seeds: tau 0 has accuracies .9, .9 and mean recalls .3, .3; tau 1 has .8, .8, .2, .9."""
    table = {0: [(0.9, 0.3), (0.9, 0.3)], 1: [(0.8, 0.2), (0.8, 0.9)]}
    outcomes = [
        [
            {
                "constants": {"tau": tau},
                "split": "tune",
                "scored_on": scored_on.to_json(),
                "after": result(1, *pairs[seed])["last_k"] | {"personal/accuracy": None},
            }
            for tau, pairs in table.items()
        ]
        for seed in (0, 1)
    ]
    assert _best(outcomes, "tau") == f"best on the validation images: generic tau={best}"


def test_rows_without_a_reference_figure_show_the_headlines():
    recipe = SimpleNamespace(
        comparison=SimpleNamespace(rows=[SimpleNamespace(label="Lazy")]), figures=[], level=None
    )
    found = reproduced(recipe, {"": {"Lazy": [result(1, 0.98, 0.25)]}}, as_written=True)
    assert [one.metric for one in found] == ["generic/balanced", "personal/accuracy"]
    assert found[0].ours.mean == pytest.approx(25)


def test_other_test_sets_are_not_comparable():
    other = {"A": [result(1, 0.5, 0.5)], "B": [result(1, 0.5, 0.5, ScoredSet((90, 5, 4)))]}
    words = "'B' and 'A' differ in the test set .images per class.: not comparable"
    for paired in (True, False):
        with pytest.raises(FedltError, match=words):
            check_comparable(other, paired=paired)
    tuned = {
        label: [result(1, 0.5, 0.5, ScoredSet(counts, "tune"))]
        for label, counts in (("A", (3, 2, 0)), ("B", (3, 0, 2)))
    }
    with pytest.raises(FedltError, match="differ in the validation set"):
        check_comparable(tuned)
