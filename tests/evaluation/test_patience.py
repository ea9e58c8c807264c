"""When a run ends on validation images: by hand, and in runs that are stopped in between."""

from __future__ import annotations

import pytest

from fedlt.cli import main
from fedlt.config.stop_section import StopConfig
from fedlt.errors import FedltError
from fedlt.evaluation.patience import best_round, check_metric, stopped
from fedlt.evaluation.rounds import last_k

METRIC = "generic/accuracy"
VALUES = (0.3, 0.5, None, 0.4, 0.5, 0.6, 0.1)
ROWS = [{"round": 2 * i + 2, METRIC: value} for i, value in enumerate(VALUES)]


def test_the_best_round_and_the_evaluations_since():
    """0.5 in round 4 is not improved by the equal value in round 10; round 6 has no value."""
    assert best_round([], METRIC) is None
    assert best_round(ROWS[:1], METRIC) == (2, 0)
    assert best_round(ROWS[:5], METRIC) == (4, 2)
    assert best_round(ROWS, METRIC) == (12, 1)
    errors = [{"round": r + 1, "generic/nll": v} for r, v in enumerate((2.0, 1.0, 1.5))]
    assert best_round(errors, "generic/nll") == (2, 1)


def test_it_stops_when_patience_is_over():
    rule = StopConfig(metric=METRIC, patience=2)
    ends = [stopped(rule, ROWS[:n]) is not None for n in range(len(ROWS) + 1)]
    assert ends == [False, False, False, False, False, True, False, False]
    assert stopped(rule, ROWS[:5]) == {
        "metric": METRIC, "patience": 2, "best_round": 4, "best": 0.5,
    }  # fmt: skip
    assert stopped(None, ROWS) is None


@pytest.mark.parametrize(
    ("metric", "reason"),
    [
        ("accuracy", "unknown metric 'accuracy'"),
        ("generic/acuracy", "nearest: 'generic/accuracy'"),
        ("train/loss", "unknown metric"),
    ],
)
def test_metrics_that_do_not_exist_are_refused(metric, reason):
    with pytest.raises(FedltError, match=f"stop.metric: .*{reason}"):
        check_metric(StopConfig(metric=metric, patience=1), has_generic=True)
    with pytest.raises(FedltError, match="needs a generic model"):
        check_metric(StopConfig(metric=METRIC, patience=1), has_generic=False)


def test_last_k_of_a_run_that_stopped_early():
    """k = 2 of 21 to 40 rounds; round 24 had the generic view alone."""
    rows = [{"round": 24, METRIC: 0.1}, {"round": 25, METRIC: 0.3, "personal/accuracy": 0.5}]
    assert last_k(rows, 25, early=True) == {"k": 1, METRIC: 0.3, "personal/accuracy": 0.5}
    rows[0]["personal/accuracy"] = 0.3
    assert last_k(rows, 25, early=True)["personal/accuracy"] == pytest.approx(0.4)


# Learning rates too small to change a prediction: the first evaluation stays the best.
STILL = {
    "rounds": 9,
    "data": {"split": "tune"},
    "local": {"lr": 1e-30},
    "evaluate": {"every": 1, "personal_every": 9},
    "stop": {"metric": METRIC, "patience": 2},
}


def test_a_run_ends_and_says_why(lab):
    run = lab.run(**STILL)
    result = run.result
    assert [row["round"] for row in run.rows] == [1, 2, 3]
    assert result["rounds"] == result["final"]["round"] == 3
    assert result["stopped"]["best_round"] == 1
    assert "personal/accuracy" in result["final"]
    assert result["last_k"]["k"] == 1
    assert run.checkpoint.round == 3


def test_it_ends_in_the_same_round_after_a_stop(lab):
    expected = lab.run(**STILL)
    for after in (1, 2):
        resumed = lab.resume(lab.stopped(after, **STILL))
        assert resumed.bits == expected.bits
        assert [row["round"] for row in resumed.rows] == [1, 2, 3]


def test_a_run_that_goes_on_improving_has_all_rounds(lab):
    run = lab.run(**{**STILL, "rounds": 2})
    result = run.result
    assert (result["rounds"], result["stopped"]) == (2, None)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ("stop: {metric: generic/accuracy, patience: 2}\n", "stop: needs data.split: tune"),
        (
            "stop: {metric: generic/acc, patience: 2}\ndata: {dataset: digits, split: tune}\n",
            "stop.metric: unknown metric",
        ),
        (
            "stop: {metric: generic/accuracy}\ndata: {dataset: digits, split: tune}\n",
            "stop.patience is missing",
        ),
        (
            "stop: {metric: generic/accuracy, patience: 2}\nevaluate: {selected_round: 3}\n"
            "data: {dataset: digits, split: tune}\n",
            "evaluate.selected_round names a round",
        ),
    ],
)
def test_wrong_rules_get_one_line_and_nothing_is_written(
    tmp_path, monkeypatch, capsys, more, reason
):
    monkeypatch.chdir(tmp_path)
    text = f"name: one\nrounds: 4\npartition: {{num_clients: 2}}\nengine: {{name: serial}}\n{more}"
    (tmp_path / "one.yaml").write_text(text)
    assert main(["run", "one.yaml"]) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert reason in told[-1]
    assert not (tmp_path / "runs").exists()
