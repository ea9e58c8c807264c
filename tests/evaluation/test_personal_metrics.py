"""The personal view on a hand-made federation of four clients, and against explicit test sets."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from fedlt.data.shots import ShotGroups, cumulative_groups
from fedlt.errors import FedltError
from fedlt.evaluation.counting import client_hits
from fedlt.evaluation.cutting import personal_metrics
from fedlt.evaluation.local_test import draw_images, local_test
from fedlt.evaluation.personal_metrics import client_accuracies, coverage_metrics
from fedlt.evaluation.scores import PersonalScores

SHOTS = ShotGroups("rank", many=(0,), medium=(1,), few=(2,))
COUNTS = [[3, 1, 0], [0, 2, 2], [0, 0, 4], [0, 0, 0]]
PARTICIPATED = [True, True, False, True]

# Ten test images a class. Client 2 was never sampled: its rows are the generic model's.
HITS = [
    [[10, 5, 0], [0, 0, 0]],
    [[9, 2, 2], [9, 10, 0]],
    [[8, 6, 1], [8, 6, 1]],
    [[1, 1, 1], [1, 1, 1]],
]
HELD = [
    [[10, 8, 0], [10, 0, 0]],
    [[0, 6, 4], [0, 10, 10]],
    [[0, 0, 10], [0, 0, 10]],
    [[0, 0, 0], [0, 0, 0]],
]
GENERIC = [[8, 6, 1]] * 4
GENERIC_HELD = [[9, 7, 0], [0, 9, 3], [0, 0, 10], [0, 0, 0]]


def hand_case(**more):
    return PersonalScores(
        heads=("local", "other"),
        cids=np.arange(4),
        hits=np.array(HITS),
        hits_held=np.array(HELD),
        generic_hits=np.array(GENERIC),
        generic_hits_held=np.array(GENERIC_HELD),
        **more,
    )


@pytest.fixture(scope="module")
def metrics():
    view = local_test(COUNTS, [10, 10, 10])
    return personal_metrics(hand_case(), view, SHOTS, participated=PARTICIPATED)


def test_accuracy(metrics):
    """Mixes (3/4, 1/4, 0), (0, 1/2, 1/2), (0, 0, 1); client 3 has no images.

    A_0 = 3/4 * 1 + 1/4 * .5 = .875; A_1 = (.2 + .2) / 2 = .2; A_2 = generic recall of class 2 = .1.
    """
    assert metrics["personal/accuracy"] == pytest.approx((0.875 + 0.2 + 0.1) / 3)
    assert metrics["personal/clients"] == 3
    assert metrics["personal/excluded"] == 1


def test_masked_is_compared_with_masked(metrics):
    """Held: (.75 + .25 * .8, (.6 + .4) / 2, generic 1) = (.95, .5, 1).

    Generic under the same masks: (.75 * .9 + .25 * .7, (.9 + .3) / 2, 1) = (.85, .6, 1): gain 0.
    """
    assert metrics["personal/accuracy_held"] == pytest.approx((0.95 + 0.5 + 1) / 3)
    assert metrics["personal/generic_held"] == pytest.approx((0.85 + 0.6 + 1) / 3)
    assert metrics["personal/gain_held"] == pytest.approx(0, abs=1e-15)


def test_distribution(metrics):
    """Sorted .1, .2, .875: p10 at rank .1 * 2 = .2 between the first two: .1 + .2 * .1 = .12."""
    assert metrics["personal/p10"] == pytest.approx(0.12)
    assert metrics["personal/worst10"] == pytest.approx(0.1)
    assert metrics["personal/worst"] == pytest.approx(0.1)
    mean = 1.175 / 3
    variance = ((0.875 - mean) ** 2 + (0.2 - mean) ** 2 + (0.1 - mean) ** 2) / 3
    assert metrics["personal/std"] == pytest.approx(variance**0.5)


def test_balanced(metrics):
    """Mean recall over held classes: (1 + .5) / 2, (.2 + .2) / 2, .1."""
    assert metrics["personal/balanced"] == pytest.approx((0.75 + 0.2 + 0.1) / 3)


def test_groups_and_their_owners(metrics):
    """Many: client 0 only, 1. Medium: .5 and .2. Few: .2 and .1 (client 2 through generic)."""
    assert metrics["personal/many"] == pytest.approx(1)
    assert metrics["personal/medium"] == pytest.approx(0.35)
    assert metrics["personal/few"] == pytest.approx(0.15)
    assert [metrics[f"personal/{g}_clients"] for g in ("many", "medium", "few")] == [1, 2, 2]


def test_group_recall_is_weighted_by_the_mix():
    """Both classes in one group, mix 3:1, recalls 1 and .5: (.75 + .125) / 1 = .875."""
    view = local_test(COUNTS, [10, 10, 10])
    both = ShotGroups("step", many=(0, 1), few=(2,))
    metrics = personal_metrics(hand_case(), view, both, participated=PARTICIPATED)
    assert metrics["personal/many"] == pytest.approx((0.875 + 0.2) / 2)
    assert metrics["personal/medium"] is None
    assert metrics["personal/medium_clients"] == 0


def test_references(metrics):
    """Majority: largest shares 3/4, 1/2 (a tie), 1.

    Generic: .75 * .8 + .25 * .6 = .75; (.6 + .1) / 2 = .35; .1. Gains .125, -.15, 0: one of three
    clients is hurt. Clients 1 and 2 hold few-class images, client 0 does not.
    """
    assert metrics["personal/majority_guess"] == pytest.approx(0.75)
    assert metrics["personal/generic"] == pytest.approx(0.4)
    assert metrics["personal/gain"] == pytest.approx(-0.025 / 3)
    assert metrics["personal/hurt"] == pytest.approx(1 / 3)
    assert metrics["personal/gain_few_owners"] == pytest.approx(-0.075)
    assert metrics["personal/gain_others"] == pytest.approx(0.125)
    assert metrics["personal/few_owners"] == 2


def test_other_heads(metrics):
    """Other head: 0, (1 + 0) / 2, generic .1; held: .75, 1, generic 1."""
    assert metrics["personal/other/accuracy"] == pytest.approx(0.6 / 3)
    assert metrics["personal/other/accuracy_held"] == pytest.approx(2.75 / 3)
    assert "personal/local/accuracy" not in metrics


def test_participation_and_coverage(metrics):
    """Three of four clients seen; of six images of class 2 client 1 holds two, client 2 four."""
    assert (metrics["personal/participated"], metrics["personal/never"]) == (3, 1)
    coverage = coverage_metrics(PARTICIPATED, COUNTS, SHOTS)
    assert coverage == {"train/coverage": 3 / 4, "train/coverage_few": 2 / 6}
    assert coverage_metrics(PARTICIPATED, COUNTS, ShotGroups("none"))["train/coverage_few"] is None


def test_steps_are_averaged_over_scored_clients():
    view = local_test(COUNTS, [10, 10, 10])
    metrics = personal_metrics(
        hand_case(), view, SHOTS, participated=PARTICIPATED, steps=[6, 3, 0, 99]
    )
    assert metrics["personal/steps"] == 3


def test_no_groups_leave_none(metrics):
    view = local_test(COUNTS, [10, 10, 10])
    none = personal_metrics(hand_case(), view, ShotGroups("none"), participated=PARTICIPATED)
    absent = ("many", "medium", "few", "gain_few_owners", "gain_others", "few_owners")
    assert [none[f"personal/{name}"] for name in absent] == [None] * len(absent)
    assert none["personal/accuracy"] == metrics["personal/accuracy"]
    assert set(none) == set(metrics)


def test_values_are_plain_and_jsonable(metrics):
    assert {type(v) for v in metrics.values()} <= {float, int, type(None)}
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics


def test_client_accuracies():
    view = local_test(COUNTS, [10, 10, 10])
    values = client_accuracies(hand_case(), view)
    np.testing.assert_allclose(values[:, 0], [0.875, 0.2, 0.1, np.nan])
    np.testing.assert_allclose(values[:, 1], [0, 0.5, 0.1, np.nan])


def test_nobody_to_score_is_none():
    view = local_test(np.zeros((4, 3), dtype=int), [10, 10, 10])
    metrics = personal_metrics(hand_case(), view, SHOTS, participated=[False] * 4)
    assert metrics["personal/accuracy"] is None
    assert metrics["personal/worst10"] is None
    assert metrics["personal/majority_guess"] is None
    assert (metrics["personal/clients"], metrics["personal/excluded"]) == (0, 4)


def test_equal_models_gain_exactly_nothing():
    """Awkward mixes; the personal hits are the generic ones: gain is 0.0, nobody is hurt."""
    rng = np.random.default_rng(2)
    counts, hits = rng.integers(0, 9, size=(30, 7)), rng.integers(0, 100, size=7)
    rows = np.tile(hits, (30, 1))
    scores = PersonalScores(("h",), np.arange(30), rows[:, None], rows[:, None], rows, rows)
    view = local_test(counts, [99] * 7)
    shots = ShotGroups("rank", (0, 1), (2, 3, 4), (5, 6))
    metrics = personal_metrics(scores, view, shots, participated=[True] * 30)
    assert metrics["personal/gain"] == 0.0
    assert metrics["personal/hurt"] == 0.0
    assert metrics["personal/accuracy"] == metrics["personal/generic"]


def test_rounding_hurts_nobody():
    """+1 hit in one class, -1 in another of equal weight: the gain is zero."""
    hits, generic = np.array([[4, 8, 6]]), np.array([[5, 7, 6]])
    scores = PersonalScores(("h",), np.arange(1), hits[:, None], hits[:, None], generic, generic)
    view = local_test([[1, 1, 1]], [10, 10, 10])
    metrics = personal_metrics(scores, view, SHOTS, participated=[True])
    assert metrics["personal/hurt"] == 0


def test_worst_tenth_is_rounded_up():
    """Eleven clients with accuracies 0, .1, ..., 1: the worst ceil(1.1) = 2 average .05."""
    hits = np.arange(11)[:, None]
    scores = PersonalScores(("h",), np.arange(11), hits[:, None], hits[:, None], hits, hits)
    view = local_test(np.ones((11, 1), dtype=int), [10])
    metrics = personal_metrics(scores, view, ShotGroups("none"), participated=[True] * 11)
    assert metrics["personal/worst10"] == pytest.approx(0.05)
    assert metrics["personal/p10"] == pytest.approx(0.1)


def test_only_evaluated_clients_are_averaged():
    scores = hand_case()
    part = PersonalScores(
        scores.heads, np.array([1]), scores.hits[1:2], scores.hits_held[1:2],
        scores.generic_hits[1:2], scores.generic_hits_held[1:2],
    )  # fmt: skip
    view = local_test(COUNTS, [10, 10, 10])
    metrics = personal_metrics(part, view, SHOTS, participated=PARTICIPATED)
    assert metrics["personal/accuracy"] == pytest.approx(0.2)
    assert metrics["personal/clients"] == 1
    assert metrics["personal/participated"] == 3


CLASSES, PER_CLASS = 4, 6


def random_federation(scheme, seed=0):
    """Random personal logits of 12 clients on a balanced test set, scored under ``scheme``."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(CLASSES), PER_CLASS)
    counts = rng.integers(0, 5, size=(12, CLASSES)) * rng.integers(0, 2, size=(12, CLASSES))
    logits = rng.normal(size=(13, len(labels), CLASSES)).astype(np.float32)
    view = local_test(counts, np.bincount(labels), scheme=scheme, seed=3)
    tensors, target = torch.from_numpy(logits), torch.from_numpy(labels)
    rows = []
    for cid in range(12):
        options = {
            "class_counts": counts[cid],
            "test_mask": view.test_mask(cid),
            "drawn": draw_images(view, cid, labels),
        }
        pair = [{"h": tensors[cid]}, {"generic": tensors[12]}]
        rows.append([client_hits(one, target, **options) for one in pair])
    personal, generic = zip(*rows, strict=True)
    scores = PersonalScores.stack(range(12), personal, generic, sampled=scheme == "sampled")
    return labels, counts, logits, view, scores


def predict(logits, allowed):
    return np.where(allowed, logits, -np.inf).argmax(axis=1)


def explicit_tests(scheme, labels, counts, view):
    """Each client's local test as an explicit list of images, with repetition where needed.

    ``exact`` and ``reference``: every image of class c as often as the client's count of c, so that
    each class has its weight and each image of a class the same. ``sampled``: the drawn images.
    """
    if scheme == "sampled":
        return [draw_images(view, cid, labels) for cid in range(len(counts))]
    repeats = view.local_counts
    return [
        np.concatenate([np.tile(np.flatnonzero(labels == c), row[c]) for c in range(CLASSES)])
        for row in repeats
    ]


@pytest.mark.parametrize("scheme", ["exact", "sampled", "reference"])
def test_closed_form_equals_an_explicit_local_test(scheme):
    labels, counts, logits, view, scores = random_federation(scheme)
    tests = explicit_tests(scheme, labels, counts, view)
    shots = ShotGroups("rank", (0,), (1, 2), (3,))
    metrics = personal_metrics(scores, view, shots, participated=[True] * 12)
    plain, held, generic = [], [], []
    groups = {"many": [], "medium": [], "few": []}
    for cid, images in enumerate(tests):
        if len(images) == 0:
            continue
        truth, every = labels[images], np.ones(CLASSES, dtype=bool)
        right = predict(logits[cid][images], every) == truth
        plain.append(right.mean())
        held.append((predict(logits[cid][images], counts[cid] > 0) == truth).mean())
        generic.append((predict(logits[12][images], every) == truth).mean())
        own = cumulative_groups(view.local_counts[cid]) if scheme == "reference" else shots
        for name, classes in own.items():
            inside = np.isin(truth, classes)
            if inside.any():
                groups[name].append(right[inside].mean())
    assert metrics["personal/accuracy"] == pytest.approx(np.mean(plain))
    assert metrics["personal/accuracy_held"] == pytest.approx(np.mean(held))
    assert metrics["personal/generic"] == pytest.approx(np.mean(generic))
    assert metrics["personal/hurt"] == np.mean(np.array(plain) < np.array(generic) - 1e-12)
    assert metrics["personal/excluded"] == 12 - len(plain)
    for name, values in groups.items():
        expected = pytest.approx(np.mean(values)) if values else None
        assert metrics[f"personal/{name}"] == expected
        assert metrics[f"personal/{name}_clients"] == len(values)


def test_reference_masks_with_the_test_and_nothing_else_does():
    labels, counts, logits, view, scores = random_federation("reference", seed=1)
    shots = ShotGroups("none")
    metrics = personal_metrics(scores, view, shots, participated=[True] * 12)
    tests = explicit_tests("reference", labels, counts, view)
    expected = [
        (predict(logits[cid][images], view.local_counts[cid] > 0) == labels[images]).mean()
        for cid, images in enumerate(tests)
        if len(images)
    ]
    assert metrics["personal/accuracy_test_held"] == pytest.approx(np.mean(expected))
    assert metrics["personal/many_test_held"] is not None
    exact = random_federation("exact", seed=1)
    others = personal_metrics(exact[4], exact[3], shots, participated=[True] * 12)
    assert not [name for name in others if "test_held" in name]


def test_reference_closed_form_where_counts_are_met_exactly():
    """t_kc = pool: the local test is all images of the held classes, each once.

    T = N = 8, two classes of 4: t = n = ((4, 0), (0, 4)); hits 3 and 1 of 4: PM = (3/4 + 1/4) / 2.
    """
    view = local_test([[4, 0], [0, 4]], [4, 4], scheme="reference")
    hits = np.array([[[3, 0]], [[0, 1]]])
    scores = PersonalScores(("h",), np.arange(2), hits, hits, hits[:, 0], hits[:, 0])
    metrics = personal_metrics(scores, view, ShotGroups("none"), participated=[True, True])
    assert metrics["personal/accuracy"] == 0.5


def test_exact_scores_serve_reference_but_not_sampled():
    *_, scores = random_federation("exact")
    counts = random_federation("exact")[1]
    swapped = local_test(counts, [PER_CLASS] * CLASSES, scheme="reference")
    metrics = personal_metrics(scores, swapped, SHOTS, participated=[True] * 12)
    assert metrics["personal/accuracy"] is not None
    sampled = local_test(counts, [PER_CLASS] * CLASSES, scheme="sampled")
    with pytest.raises(FedltError, match="sampled needs other scores"):
        personal_metrics(scores, sampled, SHOTS, participated=[True] * 12)
