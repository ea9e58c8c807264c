"""Numbers on test sets that are not balanced or lack classes: by hand, and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, recall_score

from fedlt.data.shots import ShotGroups
from fedlt.evaluation.counting import score_generic
from fedlt.evaluation.cutting import generic_metrics, personal_metrics
from fedlt.evaluation.generic import accuracy, mean_recall
from fedlt.evaluation.headline import ScoredSet, headlines, mass_note, scored_set
from fedlt.evaluation.local_test import draw_images, local_test
from fedlt.evaluation.personal_metrics import client_accuracies
from fedlt.evaluation.priors import prior_metrics
from fedlt.evaluation.rounds import best_on_test
from fedlt.evaluation.scores import PersonalScores

# Test images by class: 6, 2, 4, none. Predictions go right 6, 1 and 1 times.
COUNTS = [6, 2, 4, 0]
CONFUSION = np.array([[6, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 2], [0, 0, 0, 0]])
SHOTS = ShotGroups("rank", many=(0, 1), medium=(3,), few=(2, 3))


def scores_of(confusion, **more):
    """Scores of a head whose predictions make a confusion matrix."""
    pairs = [(c, p) for (c, p), n in np.ndenumerate(confusion) for _ in range(n)]
    labels, predicted = (torch.tensor(one) for one in zip(*pairs, strict=True))
    logits = torch.nn.functional.one_hot(predicted, len(confusion)).double()[:, None]
    heads = {"head": lambda features: features, **more}
    return score_generic(logits, labels, heads, lambda z: z[:, 0], block_size=4)


def test_generic_numbers_by_hand():
    """Accuracy (6 + 1 + 1) / 12. Recalls 1, 1/2, 1/4, none: their mean 7/12, the lowest 1/4.

    Many is the mean of 1 and 1/2 (7 of its 8 images would be 7/8); few has one class with images.
    """
    metrics = generic_metrics(scores_of(CONFUSION), SHOTS)
    assert metrics["generic/accuracy"] == pytest.approx(2 / 3)
    assert metrics["generic/balanced"] == pytest.approx(7 / 12)
    assert metrics["generic/many"] == pytest.approx(3 / 4)
    assert metrics["generic/few"] == pytest.approx(1 / 4)
    assert metrics["generic/worst_class"] == 1 / 4
    names = ("medium", "medium_nll", "medium_ece")
    assert [metrics[f"generic/{name}"] for name in names] == [None] * 3


def test_likelihood_and_calibration_are_means_over_images():
    """Logits 1 for the predicted class, 0 for three others: p = e / (e + 3), else 1 / (e + 3).

    8 right of 12: nll = ln(e + 3) - 8/12; the confidence is p everywhere: ece = |8/12 - p|.
    """
    metrics = generic_metrics(scores_of(CONFUSION), SHOTS)
    confidence = np.e / (np.e + 3)
    assert metrics["generic/nll"] == pytest.approx(np.log(np.e + 3) - 8 / 12, abs=1e-7)
    assert metrics["generic/ece"] == pytest.approx(abs(8 / 12 - confidence), abs=1e-9)
    assert metrics["generic/many_ece"] == pytest.approx(abs(7 / 8 - confidence), abs=1e-9)


def test_other_heads_have_the_same_numbers():
    """Negated one-hot logits name class 1 where the first head names 0, and otherwise class 0.

    Class 0: none of 6 right; class 1: the image called 0, 1 of 2; class 2: none of 4. Mean 1/6.
    """
    metrics = generic_metrics(scores_of(CONFUSION, second=lambda features: -features), SHOTS)
    assert metrics["generic/second/accuracy"] == pytest.approx(1 / 12)
    assert metrics["generic/second/balanced"] == pytest.approx(1 / 6)
    assert metrics["generic/second/many"] == pytest.approx(1 / 4)
    same = generic_metrics(scores_of(CONFUSION, second=lambda features: features), SHOTS)
    for word in ("accuracy", "balanced", "many", "few"):
        assert same[f"generic/second/{word}"] == same[f"generic/{word}"]


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.parametrize("missing", [(), (5,), (0, 3)])
def test_against_scikit_learn(missing):
    rng = np.random.default_rng(len(missing))
    counts = rng.integers(1, 60, 7)
    counts[list(missing)] = 0
    labels = np.repeat(np.arange(7), counts)
    logits = rng.normal(size=(len(labels), 1, 7)) + np.eye(7)[labels][:, None] * 2
    scores = score_generic(
        torch.from_numpy(logits),
        torch.from_numpy(labels),
        {"head": lambda features: features},
        lambda z: z[:, 0],
        block_size=16,
    )
    predicted = logits[:, 0].argmax(axis=1)
    metrics = generic_metrics(scores, ShotGroups("rank", (0, 1, 2), (), (3, 4, 5, 6)))
    assert metrics["generic/accuracy"] == pytest.approx(accuracy_score(labels, predicted))
    assert metrics["generic/balanced"] == pytest.approx(balanced_accuracy_score(labels, predicted))
    for name, classes in (("many", (0, 1, 2)), ("few", (3, 4, 5, 6))):
        known = [c for c in classes if counts[c]]
        expected = recall_score(labels, predicted, labels=known, average="macro")
        assert metrics[f"generic/{name}"] == pytest.approx(expected)


def test_on_a_balanced_set_the_mean_recall_is_the_accuracy_to_the_last_bit():
    rng = np.random.default_rng(0)
    for images in (1, 7, 49, 50, 333):
        hits = rng.integers(0, images + 1, 10)
        confusion = np.zeros((10, 10), dtype=np.int64)
        for c, hit in enumerate(hits):
            confusion[c, c], confusion[c, c - 1] = hit, images - hit
        for classes in (None, (0, 1, 2), (3, 5, 7, 9)):
            assert mean_recall(confusion, classes) == accuracy(confusion, classes)


def test_a_perfect_model_has_exactly_one_and_no_images_have_no_mean():
    perfect = np.diag([3, 7, 49, 11])
    assert mean_recall(perfect) == 1.0
    assert mean_recall(CONFUSION, (3,)) is None


def test_the_headline_follows_the_counts():
    balanced, short = ScoredSet((5, 5, 5)), ScoredSet((5, 5, 0))
    assert balanced.balanced
    assert balanced.headlines["generic"] == "generic/accuracy"
    assert balanced.note() == ""
    assert not short.balanced
    assert short.without == (2,)
    assert short.headlines == {"generic": "generic/balanced", "personal": "personal/accuracy"}
    assert ScoredSet.from_json(short.to_json(), "final") == short
    assert ScoredSet.of(np.array([0, 0, 2]), 3, "tune") == ScoredSet((2, 0, 1), "tune")
    assert not ScoredSet((0, 0)).balanced
    assert headlines({"scored_on": short.to_json(), "split": "final"}) == short.headlines
    assert scored_set({"split": "final"}).balanced


def test_the_note_says_in_one_line_what_is_unusual():
    line = ScoredSet((6, 2, 4, 0), "tune").note(["cat", "dog", "owl", "yak"])
    assert line.startswith(
        "the validation set is not balanced: 1 of 4 classes has no image (yak) and weighs nothing, "
        "the other classes have 2 to 6; balanced is "
    )
    known = ScoredSet((6, 2)).note()
    assert known.startswith("the test set is not balanced: 2 to 6 images a class; balanced is ")
    assert "\n" not in line
    many = ScoredSet((3, *[0] * 12)).note()
    assert (
        "12 of 13 classes have no image (1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more) and weigh "
        "nothing, the other class has 3; " in many
    )


def test_a_model_that_knows_the_large_class_only_does_not_come_first():
    """98 of class 0, 1 of each other: always 0 has accuracy .98 and mean recall 1/3.

    A model that is right on 90 of class 0 and on both others: accuracy .92, mean recall .97.
    """
    lazy = np.array([[98, 0, 0], [1, 0, 0], [1, 0, 0]])
    fair = np.array([[90, 4, 4], [0, 1, 0], [0, 0, 1]])
    counts = ScoredSet(tuple(lazy.sum(axis=1).tolist()))
    rows = [generic_metrics(scores_of(one), ShotGroups("none")) for one in (lazy, fair)]
    assert rows[0]["generic/accuracy"] > rows[1]["generic/accuracy"]
    first = [row[counts.headlines["generic"]] for row in rows]
    assert first == [pytest.approx(1 / 3), pytest.approx((90 / 98 + 2) / 3)]


# Four clients, three classes; class 2 has no test image, classes 0 and 1 have 10 and 20.
HELD_COUNTS = [[3, 1, 4], [0, 2, 2], [0, 0, 5], [2, 2, 0]]
POOL = [10, 20, 0]
HITS = np.array([[8, 10, 0], [5, 5, 0], [9, 9, 0], [4, 20, 0]])
GENERIC = np.array([[6, 12, 0]] * 4)
GROUPS = ShotGroups("rank", many=(0,), medium=(1,), few=(2,))


def personal(view, hits=HITS, generic=GENERIC, **more):
    scores = PersonalScores(
        heads=("own",),
        cids=np.arange(4),
        hits=hits[:, None],
        hits_held=hits[:, None],
        generic_hits=generic,
        generic_hits_held=generic,
        sampled=view.scheme == "sampled",
        **more,
    )
    return scores, personal_metrics(scores, view, GROUPS, participated=[True] * 4)


def test_personal_numbers_by_hand():
    """Mixes over the tested classes: (3/4, 1/4), (0, 1), nothing, (1/2, 1/2).

    Recalls (.8, .5), (.5, .25), -, (.4, 1): A = .725, .25, .7. Generic (.6, .6): G = .6 always.
    Lost: 4/8, 2/4, -, 0: mean 1/3. The largest tested class: 3/4, 1, 1/2.
    """
    view = local_test(HELD_COUNTS, POOL)
    scores, metrics = personal(view)
    assert metrics["personal/accuracy"] == pytest.approx((0.725 + 0.25 + 0.7) / 3)
    assert metrics["personal/accuracy_held"] == metrics["personal/accuracy"]
    assert metrics["personal/generic"] == pytest.approx(0.6)
    assert metrics["personal/gain"] == pytest.approx((0.125 - 0.35 + 0.1) / 3)
    assert metrics["personal/hurt"] == pytest.approx(1 / 3)
    assert metrics["personal/worst"] == pytest.approx(0.25)
    assert metrics["personal/mass_lost"] == pytest.approx(1 / 3)
    assert metrics["personal/majority_guess"] == pytest.approx((3 / 4 + 1 + 1 / 2) / 3)
    assert metrics["personal/balanced"] == pytest.approx((0.65 + 0.25 + 0.7) / 3)
    assert (metrics["personal/clients"], metrics["personal/excluded"]) == (3, 1)
    own = client_accuracies(scores, view)[:, 0]
    np.testing.assert_allclose(own, [0.725, 0.25, np.nan, 0.7])


def test_personal_groups_by_hand():
    """Many (class 0): .8 and .4. Medium (class 1): .5, .25, 1. Few: its class has no test image."""
    _, metrics = personal(local_test(HELD_COUNTS, POOL))
    assert metrics["personal/many"] == pytest.approx(0.6)
    assert metrics["personal/medium"] == pytest.approx((0.5 + 0.25 + 1) / 3)
    assert metrics["personal/few"] is None
    owners = [metrics[f"personal/{name}_clients"] for name in ("many", "medium", "few")]
    assert owners == [2, 3, 0]
    assert metrics["personal/few_owners"] == 2  # clients that hold few-classes, tested or not
    assert metrics["personal/gain_few_owners"] == pytest.approx((0.125 - 0.35) / 2)


def test_sampled_view_by_hand():
    """Client 0 at 3:1 from (10, 20): M = floor(10 / .75) = 13, 9.75 and 3.25: 10 and 3 images.

    Client 1 holds one tested class: all its 20. Client 2: nothing. Client 3 at 1:1: 10 and 10.
    """
    view = local_test(HELD_COUNTS, POOL, scheme="sampled", seed=3)
    assert view.local_counts.tolist() == [[10, 3, 0], [0, 20, 0], [0, 0, 0], [10, 10, 0]]
    labels = np.repeat([0, 1], [10, 20])
    assert len(draw_images(view, 0, labels)) == 13
    assert len(draw_images(view, 2, labels)) == 0
    hits = np.array([[5, 3, 0], [0, 10, 0], [0, 0, 0], [5, 10, 0]])
    generic = np.array([[10, 0, 0], [0, 20, 0], [0, 0, 0], [5, 5, 0]])
    _, metrics = personal(view, hits, generic)
    assert metrics["personal/accuracy"] == pytest.approx((8 / 13 + 1 / 2 + 15 / 20) / 3)
    assert metrics["personal/gain"] == pytest.approx((-2 / 13 - 10 / 20 + 5 / 20) / 3)
    assert metrics["personal/mass_lost"] == pytest.approx(1 / 3)
    assert metrics["personal/majority_guess"] == pytest.approx((10 / 13 + 1 + 1 / 2) / 3)
    assert metrics["personal/excluded"] == 1


def test_reference_view_by_hand():
    """T = 30 test and N = 21 training images: floor(30 n / 21), at most (10, 20, 0).

    Client 0: floor of 4.3 and 1.4; client 1: 2.9; client 3: 2.9 and 2.9.
    """
    view = local_test(HELD_COUNTS, POOL, scheme="reference")
    assert view.local_counts.tolist() == [[4, 1, 0], [0, 2, 0], [0, 0, 0], [2, 2, 0]]
    assert view.test_mask(0).tolist() == [True, True, False]
    _, metrics = personal(view, hits_test=HITS[:, None], generic_hits_test=GENERIC)
    expected = (0.8 * 0.8 + 0.2 * 0.5 + 0.25 + 0.7) / 3
    assert metrics["personal/accuracy"] == pytest.approx(expected)
    assert metrics["personal/accuracy_test_held"] == pytest.approx(expected)
    assert metrics["personal/mass_lost"] == pytest.approx(1 / 3)
    assert metrics["personal/majority_guess"] == pytest.approx((4 / 5 + 1 + 1 / 2) / 3)


def test_nothing_is_lost_where_every_class_is_tested():
    _, metrics = personal(local_test(HELD_COUNTS, [10, 20, 5]))
    assert metrics["personal/mass_lost"] == 0
    assert metrics["personal/clients"] == 4


def test_the_mass_lost_is_told_and_is_no_score():
    _, metrics = personal(local_test(HELD_COUNTS, POOL))
    known = {"scored_on": ScoredSet(tuple(POOL)).to_json(), "final": metrics}
    line = mass_note([known, {"final": {"personal/mass_lost": 0.0}}], "final")
    assert line.startswith("personal view: 16.7 % of a client's images")
    alone = mass_note([{**known, "final": {**metrics, "personal/mass_lost": 0.0}}], "final")
    assert alone == "personal view: 1 client without an image of a tested class left out"
    assert mass_note([known], "final").startswith("personal view: 33.3 % of a client's images")
    assert mass_note([{"final": {"personal/mass_lost": 0.0}}, {"final": None}], "final") == ""
    everywhere = {"final": {"personal/excluded": 3, "personal/mass_lost": 0.0}}
    assert mass_note([everywhere], "final") == ""  # clients without images are no news here
    assert "personal/mass_lost" not in best_on_test([{"round": 1, **metrics}])


def test_test_priors_go_to_the_classes_with_images():
    """Training counts 100, 10, 1; backward F over their ranks: 1/F, 1/sqrt(F), 1.

    Class 2 is not tested: the first two are normalised. Uniform: the mean of .5 and .25.
    """
    confusion = np.array([[2, 2, 0], [3, 1, 0], [0, 0, 0]])
    rows = np.array([[0.5, 0.25, np.nan], [1.0, 0.0, np.nan]])
    metrics = prior_metrics(
        [100, 10, 1], confusion=confusion, client_recalls=rows, test_counts=[4, 4, 0]
    )
    backward = {2.0: (1 / 2, 2**-0.5), 10.0: (1 / 10, 10**-0.5)}
    for factor, (first, second) in backward.items():
        weights = np.array([first, second]) / (first + second)
        expected = weights @ [0.5, 0.25]
        assert metrics[f"generic/under_backward_{factor:g}"] == pytest.approx(expected)
        own = (weights @ [0.5, 0.25] + weights @ [1.0, 0.0]) / 2
        assert metrics[f"personal/under_backward_{factor:g}"] == pytest.approx(own)
    assert metrics["generic/under_uniform"] == pytest.approx(0.375)
    assert metrics["generic/under_uniform"] == pytest.approx(mean_recall(confusion))
