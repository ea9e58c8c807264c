"""Which rounds are evaluated, and the four ways to take a number from them."""

from __future__ import annotations

import pytest

from fedlt.errors import FedltError
from fedlt.evaluation.rounds import (
    best_on_test,
    final,
    last_k,
    last_rounds,
    rounds_to_evaluate,
    selected,
    summarise,
)


@pytest.mark.parametrize(
    ("rounds", "expected"),
    [
        (1, [1]),
        (20, [20]),
        (21, [20, 21]),
        (150, list(range(143, 151))),
        (200, list(range(191, 201))),
        (5000, list(range(4991, 5001))),
    ],
)
def test_last_rounds(rounds, expected):
    """k = min(10, ceil(R / 20)): 1, 1, 2, ceil(7.5) = 8, 10, and never more than 10."""
    assert last_rounds(rounds) == expected


def test_rounds_to_evaluate():
    """40 rounds: k = 2. Every 15: 15, 30; personal every 20: 20, 40; both: 39, 40."""
    generic, personal = rounds_to_evaluate(40, every=15, personal_every=20)
    assert personal == {20, 39, 40}
    assert generic == {15, 20, 30, 39, 40}
    assert rounds_to_evaluate(5, every=2) == ({2, 4, 5}, {2, 4, 5})


# 21 rounds: k = 2, the last two are 20 and 21.
RECORDS = [
    {
        "round": 10,
        "generic/accuracy": 0.7,
        "generic/nll": 0.9,
        "generic/few_ece": 0.1,
        "personal/accuracy": 0.6,
        "personal/hurt": 0.2,
        "personal/few_clients": 9,
        "personal/few_owners": 9,
        "personal/gain_few_owners": -0.1,
        "personal/never": 1,
    },
    {"round": 15, "generic/accuracy": 0.8, "generic/nll": 2.0, "generic/few": None},
    {
        "round": 20,
        "generic/accuracy": 0.5,
        "generic/nll": 1.0,
        "generic/few": 0.25,
        "personal/accuracy": 0.7,
        "personal/few": None,
        "train/loss": 3.0,
    },
    {
        "round": 21,
        "generic/accuracy": 0.6,
        "generic/nll": 1.5,
        "generic/few": 0.5,
        "personal/accuracy": 0.5,
        "personal/few": 0.25,
        "train/loss": 2.0,
        "status": "ok",
    },
]


def test_final_is_the_last_round():
    assert final(RECORDS, 21) == RECORDS[-1]
    with pytest.raises(
        FedltError, match=r"round 22 was not evaluated; nearest evaluated round: 21"
    ):
        final(RECORDS, 22)


def test_last_k_is_the_mean_and_none_where_one_is_none():
    means = last_k(RECORDS, 21)
    assert means == {
        "k": 2,
        "generic/accuracy": pytest.approx(0.55),
        "generic/nll": 1.25,
        "generic/few": 0.375,
        "personal/accuracy": pytest.approx(0.6),
        "personal/few": None,
        "train/loss": 2.5,
    }
    with pytest.raises(FedltError, match="round 20 was not evaluated"):
        last_k(RECORDS[:2] + RECORDS[3:], 21)


def test_selected_needs_both_views_at_that_round():
    assert selected(RECORDS, 10) == RECORDS[0]
    with pytest.raises(FedltError, match="round 15 has no personal/accuracy"):
        selected(RECORDS, 15)
    with pytest.raises(FedltError, match=r"round 12 was not evaluated.*: 10"):
        selected(RECORDS, 12)


def test_best_on_test_searches_each_metric_apart():
    """Accuracies by maxima (rounds 15 and 20), nll, ece and hurt by minima, no counts, no train."""
    assert best_on_test(RECORDS) == {
        "generic/accuracy": 0.8,
        "generic/nll": 0.9,
        "generic/few_ece": 0.1,
        "generic/few": 0.5,
        "personal/accuracy": 0.7,
        "personal/hurt": 0.2,
        "personal/gain_few_owners": -0.1,
        "personal/few": 0.25,
    }


def test_summarise():
    summary = summarise(RECORDS, 21)
    assert list(summary) == ["final", "last_k", "selected", "best_on_test"]
    assert summary["selected"] is None
    assert summarise(RECORDS, 21, selected_round=20)["selected"]["personal/accuracy"] == 0.7
