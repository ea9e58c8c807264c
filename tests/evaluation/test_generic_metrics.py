"""The generic view on hand-made logits, and against scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, log_loss, recall_score

from fedlt.data.shots import ShotGroups
from fedlt.evaluation.counting import score_generic
from fedlt.evaluation.cutting import generic_metrics
from fedlt.evaluation.generic import (
    accuracy,
    expected_calibration_error,
    mean_nll,
    recalls,
)

SHOTS = ShotGroups("rank", many=(0,), medium=(1,), few=(2,))


def first_stream(logits):
    return logits[:, 0]


def identity(features):
    return features


def score(probabilities, labels, **more):
    """Scores of a head whose softmax gives ``probabilities`` (B, C)."""
    logits = torch.tensor(probabilities, dtype=torch.float64).log()[:, None]
    heads = {"main": identity, **more}
    return score_generic(logits, torch.tensor(labels), heads, first_stream, block_size=3)


# Five images. Predictions 0, 0, 1, 0, 2 of true classes 0, 0, 1, 1, 2.
PROBABILITIES = [
    [0.7, 0.2, 0.1],
    [0.7, 0.1, 0.2],
    [0.3, 0.5, 0.2],
    [0.5, 0.3, 0.2],
    [0.2, 0.3, 0.5],
]
LABELS = [0, 0, 1, 1, 2]


def test_accuracy_and_groups_by_hand():
    """4 of 5 right. Recalls 1, 1/2, 1; their mean 5/6; the lowest 1/2."""
    metrics = generic_metrics(score(PROBABILITIES, LABELS), SHOTS)
    assert metrics["generic/accuracy"] == 4 / 5
    assert metrics["generic/balanced"] == pytest.approx(5 / 6)
    assert metrics["generic/worst_class"] == 1 / 2
    assert [metrics[f"generic/{g}"] for g in ("many", "medium", "few")] == [1, 1 / 2, 1]


def test_nll_by_hand():
    """-(2 ln .7 + ln .5 + ln .3 + ln .5) / 5; per group over its own images."""
    metrics = generic_metrics(score(PROBABILITIES, LABELS), SHOTS)
    total = -(2 * math.log(0.7) + 2 * math.log(0.5) + math.log(0.3)) / 5
    assert metrics["generic/nll"] == pytest.approx(total, abs=1e-7)
    assert metrics["generic/many_nll"] == pytest.approx(-math.log(0.7), abs=1e-7)
    medium = -(math.log(0.5) + math.log(0.3)) / 2
    assert metrics["generic/medium_nll"] == pytest.approx(medium, abs=1e-7)


def test_ece_by_hand():
    """Confidences .7 .7 .5 .5 .5 fall into two bins, (10/15, 11/15] and (7/15, 8/15].

    The first: accuracy 1, confidence .7, gap .3, 2 images; the second: accuracy 2/3, gap 1/6, 3
    images. ECE = 2/5 * .3 + 3/5 * 1/6 = .22. Class 1 alone: accuracy 1/2 = confidence, ECE 0.
    """
    metrics = generic_metrics(score(PROBABILITIES, LABELS), SHOTS)
    assert metrics["generic/ece"] == pytest.approx(0.22, abs=1e-9)
    assert metrics["generic/many_ece"] == pytest.approx(0.3, abs=1e-9)
    assert metrics["generic/medium_ece"] == pytest.approx(0, abs=1e-9)
    assert metrics["generic/few_ece"] == pytest.approx(0.5, abs=1e-9)


def test_bins_are_open_below_and_closed_above():
    """Logits (0, 0): the confidence is 1/2 exactly, inside bin 7. One class: 1, the last bin."""
    half = score_generic(
        torch.zeros(1, 1, 2), torch.tensor([0]), {"h": identity}, first_stream, block_size=1
    )
    assert half.bin_counts[0].sum(axis=0).nonzero()[0].tolist() == [7]
    sure = score_generic(
        torch.zeros(1, 1, 1), torch.tensor([0]), {"h": identity}, first_stream, block_size=1
    )
    assert sure.bin_counts[0].sum(axis=0).nonzero()[0].tolist() == [14]


def random_case():
    rng = np.random.default_rng(4)
    logits = torch.from_numpy(rng.normal(size=(600, 1, 6)).astype(np.float32) * 2)
    labels = np.repeat(np.arange(6), 100)
    scores = score_generic(
        logits, torch.from_numpy(labels), {"h": identity}, first_stream, block_size=128
    )
    return logits[:, 0], labels, scores


def test_against_scikit_learn():
    logits, labels, scores = random_case()
    predicted = logits.argmax(dim=1).numpy()
    metrics = generic_metrics(scores, ShotGroups("rank", (0, 1), (2, 3), (4, 5)))
    assert metrics["generic/accuracy"] == pytest.approx(accuracy_score(labels, predicted))
    assert metrics["generic/balanced"] == pytest.approx(balanced_accuracy_score(labels, predicted))
    expected = recall_score(labels, predicted, average=None)
    np.testing.assert_allclose(recalls(scores.confusion[0]), expected)
    assert metrics["generic/worst_class"] == pytest.approx(expected.min())
    few = recall_score(labels, predicted, average=None, labels=[4, 5]).mean()
    assert metrics["generic/few"] == pytest.approx(few)
    probabilities = logits.double().softmax(dim=1).numpy()
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    assert metrics["generic/nll"] == pytest.approx(log_loss(labels, probabilities), abs=1e-7)


def test_ece_equals_a_loop_over_bins():
    logits, labels, scores = random_case()
    confidence, predicted = (t.numpy() for t in logits.double().softmax(dim=1).max(dim=1))
    total = 0.0
    for i in range(15):
        inside = (confidence > i / 15) & (confidence <= (i + 1) / 15)
        if inside.any():
            gap = (predicted == labels)[inside].mean() - confidence[inside].mean()
            total += inside.mean() * abs(gap)
    assert expected_calibration_error(scores, 0) == pytest.approx(total, abs=1e-9)


def test_group_shares_rebuild_the_accuracy():
    """Balanced test: accuracy = sum over groups of share * group accuracy."""
    _, _, scores = random_case()
    groups = {"many": (0,), "medium": (1, 2), "few": (3, 4, 5)}
    metrics = generic_metrics(scores, ShotGroups("rank", **groups))
    rebuilt = sum(len(g) / 6 * metrics[f"generic/{name}"] for name, g in groups.items())
    assert metrics["generic/accuracy"] == pytest.approx(rebuilt)


def test_absent_groups_and_classes_are_none():
    metrics = generic_metrics(score(PROBABILITIES, LABELS), ShotGroups("step", (0, 1), (), (2,)))
    assert [metrics[f"generic/{n}"] for n in ("medium", "medium_nll", "medium_ece")] == [None] * 3
    without = score(PROBABILITIES[:2], LABELS[:2]).confusion[0]
    assert accuracy(without, (2,)) is None
    assert np.isnan(recalls(without)[1:]).all()


def test_classes_without_test_images_do_not_enter_balanced_or_worst():
    metrics = generic_metrics(score(PROBABILITIES[:4], LABELS[:4]), SHOTS)
    assert metrics["generic/balanced"] == 3 / 4
    assert metrics["generic/worst_class"] == 1 / 2
    assert metrics["generic/few"] is None


def test_other_heads_are_named_and_never_primary():
    def backwards(features):
        return -features

    metrics = generic_metrics(score(PROBABILITIES, LABELS, auxiliary=backwards), SHOTS)
    assert metrics["generic/accuracy"] == 4 / 5
    assert metrics["generic/auxiliary/accuracy"] == 0
    assert metrics["generic/auxiliary/few"] == 0
    assert not [name for name in metrics if name.startswith("generic/main/")]


def test_diverged_model_has_no_likelihood():
    """Class 1's image is NaN: its group and the total have no nll; the others keep theirs."""
    scores = score([[0.5, 0.5], [math.nan, 0.5]], [0, 1])
    assert mean_nll(scores, 0) is None
    assert mean_nll(scores, 0, (1,)) is None
    assert mean_nll(scores, 0, (0,)) == pytest.approx(math.log(2), abs=1e-7)
    metrics = generic_metrics(scores, ShotGroups("none"))
    assert metrics["generic/nonfinite"] == 1
    assert metrics["generic/ece"] is not None


def test_values_are_plain_python():
    metrics = generic_metrics(score(PROBABILITIES, LABELS), SHOTS)
    assert {type(v) for v in metrics.values()} <= {float, int, type(None)}
