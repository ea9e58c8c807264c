"""The evaluation pass against scikit-learn and naive loops; exact addition over shards."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix

from fedlt.errors import FedltError
from fedlt.evaluation.counting import (
    client_hits,
    count_hits,
    fused_logits,
    score_client,
    score_generic,
)
from fedlt.evaluation.scores import ClientHits, GenericScores, PersonalScores

CLASSES = 5


def mean(logits):
    return logits.mean(dim=1)


def identity(features):
    return features


def case(images=230, streams=3, dim=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(images, streams, dim, generator=generator)
    labels = torch.randint(0, CLASSES, (images,), generator=generator)
    weights = {n: torch.randn(dim, CLASSES, generator=generator) for n in ("first", "second")}
    heads = {name: (lambda x, w=w: x @ w) for name, w in weights.items()}
    return features, labels, heads


def arrays(scores):
    return {f.name: getattr(scores, f.name) for f in dataclasses.fields(scores)}


def test_confusion_is_scikit_learns():
    features, labels, heads = case()
    scores = score_generic(features, labels, heads, mean, block_size=50)
    assert scores.heads == ("first", "second")
    for index, head in enumerate(heads.values()):
        predicted = head(features).mean(dim=1).argmax(dim=1)
        expected = confusion_matrix(labels, predicted, labels=range(CLASSES))
        np.testing.assert_array_equal(scores.confusion[index], expected)
    np.testing.assert_array_equal(scores.test_counts, np.bincount(labels, minlength=CLASSES))
    assert scores.confusion.dtype == np.int64
    assert scores.logits is None


def test_shards_at_block_limits_add_up_to_the_same_bits():
    features, labels, heads = case()

    def part(start, stop):
        cut = slice(start, stop)
        return score_generic(
            features[cut], labels[cut], heads, mean, block_size=30, keep_logits=True
        )

    whole = arrays(part(0, 230))
    a, b, c = part(0, 60), part(60, 90), part(90, 230)
    for total in ((a + b) + c, a + (b + c)):
        for name, value in arrays(total).items():
            np.testing.assert_array_equal(value, whole[name])


def test_scores_of_other_heads_are_not_added():
    features, labels, heads = case()
    one = score_generic(features, labels, heads, mean, block_size=50)
    other = score_generic(features, labels, {"x": heads["first"]}, mean, block_size=50)
    with pytest.raises(FedltError, match="cannot be added"):
        one + other


def test_logits_are_kept_in_half_precision_and_finite():
    logits = torch.tensor([[[1.5, 1e9, -1e9]], [[0.25, float("-inf"), 2.0]]])
    scores = score_generic(
        logits, torch.tensor([1, 2]), {"h": identity}, mean, block_size=8, keep_logits=True
    )
    assert scores.logits.dtype == np.float16
    expected = [[[1.5, 65504, -65504], [0.25, -65504, 2.0]]]
    np.testing.assert_array_equal(scores.logits, np.array(expected, dtype=np.float16))


def test_not_finite_images_are_counted_not_summed():
    """Image 0: p = 1/2. Image 1: NaN. Image 2: its class is ruled out, -log p = inf."""
    nan, inf = float("nan"), float("inf")
    logits = torch.tensor([[[0.0, 0.0]], [[nan, 1.0]], [[-inf, 0.0]]])
    scores = score_generic(logits, torch.tensor([0, 1, 0]), {"h": identity}, mean, block_size=2)
    assert scores.nonfinite.tolist() == [[1, 1]]
    assert scores.nll[0, 0] * 2.0**-24 == pytest.approx(np.log(2), abs=1e-7)
    assert scores.nll[0, 1] == 0
    assert scores.bin_counts.sum() == 3


def test_count_hits_masks_by_minus_infinity():
    """Signed logits: class 0 wins both rows; barred, the next best wins although negative.

    A NaN logit of a barred class does not matter; an empty mask hits nothing.
    """
    logits = torch.tensor([[3.0, -2.0, -1.0], [3.0, -1.0, -2.0], [float("nan"), 1.0, 0.0]])
    labels = torch.tensor([2, 2, 1])
    assert count_hits(logits, labels).tolist() == [0, 0, 0]
    held = np.array([False, True, True])
    assert count_hits(logits, labels, classes=held).tolist() == [0, 1, 1]
    assert count_hits(logits, labels, classes=held, drawn=np.array([0, 1])).tolist() == [0, 0, 1]
    assert count_hits(logits, labels, classes=np.zeros(3, dtype=bool)).tolist() == [0, 0, 0]


def naive_hits(logits, labels, classes, positions):
    """One image at a time: the best allowed class, the lowest id among equals."""
    hits = [0] * logits.shape[1]
    for i in positions:
        best = max(classes, key=lambda c: (float(logits[i, c]), -c))
        hits[int(labels[i])] += int(best == int(labels[i]))
    return hits


def test_score_client_equals_a_naive_loop():
    features, labels, heads = case(images=90)
    counts, drawn = np.array([4, 0, 1, 0, 9]), np.array([3, 5, 20, 21, 60, 88])
    test_mask = np.array([True, False, False, False, True])
    for chosen in (None, drawn):
        scores = score_client(
            features, labels, heads, mean,
            class_counts=counts, block_size=25, test_mask=test_mask, drawn=chosen,
        )  # fmt: skip
        positions = range(90) if chosen is None else drawn
        for index, head in enumerate(heads.values()):
            logits = head(features).mean(dim=1)
            args = (logits, labels)
            assert scores.hits[index].tolist() == naive_hits(*args, range(CLASSES), positions)
            assert scores.hits_held[index].tolist() == naive_hits(*args, (0, 2, 4), positions)
            assert scores.hits_test[index].tolist() == naive_hits(*args, (0, 4), positions)


@pytest.mark.parametrize("test_mask", [None, np.array([True, True, False, False, True])])
def test_client_hits_add_up_over_shards(test_mask):
    """Drawn positions 3, 20, 60 of 90 images are 3, 20 of the first 50 and 10 of the others."""
    features, labels, heads = case(images=90)
    options = {"class_counts": np.array([4, 0, 1, 0, 9]), "test_mask": test_mask, "block_size": 25}

    def part(start, stop, drawn):
        cut = slice(start, stop)
        return score_client(features[cut], labels[cut], heads, mean, drawn=drawn, **options)

    for first, second, every in [(None, None, None), ([3, 20], [10], [3, 20, 60]), ([3], [], [3])]:
        drawn = [None if d is None else np.array(d, dtype=np.int64) for d in (first, second, every)]
        total, whole = part(0, 50, drawn[0]) + part(50, 90, drawn[1]), part(0, 90, drawn[2])
        for name, value in arrays(total).items():
            np.testing.assert_array_equal(value, getattr(whole, name))


def test_hits_of_other_heads_are_not_added():
    with pytest.raises(FedltError, match="cannot be added"):
        one_client(1) + one_client(1, ("a", "c"))


def test_read_only_arrays_are_fine():
    """Arrays from shared memory are read-only; torch would warn, and warnings are errors here."""
    features, labels, heads = case(images=20)
    counts, drawn = np.array([1, 0, 1, 0, 1]), np.array([2, 4])
    for array in (counts, drawn):
        array.flags.writeable = False
    args = (features, labels, heads, mean)
    assert score_client(*args, class_counts=counts, block_size=9, drawn=drawn).hits.sum() <= 4


def test_test_labels_mask_nothing_unless_asked():
    features, labels, heads = case(images=40)
    scores = score_client(
        features, labels, heads, mean, class_counts=np.ones(CLASSES), block_size=40
    )
    assert scores.hits_test is None
    np.testing.assert_array_equal(scores.hits, scores.hits_held)


def test_a_personal_model_equal_to_the_generic_one_has_its_hits():
    features, labels, heads = case()
    generic = score_generic(features, labels, heads, mean, block_size=70)
    personal = score_client(
        features, labels, heads, mean, class_counts=np.ones(CLASSES), block_size=70
    )
    diagonal = np.diagonal(generic.confusion, axis1=1, axis2=2)
    np.testing.assert_array_equal(personal.hits, diagonal)


def test_client_hits_from_logits_at_hand():
    features, labels, heads = case()
    logits = {n: fused_logits(features, h, mean, block_size=64) for n, h in heads.items()}
    counts = np.array([1, 1, 0, 0, 2])
    direct = client_hits(logits, labels, class_counts=counts)
    passed = score_client(features, labels, heads, mean, class_counts=counts, block_size=64)
    for name, value in arrays(direct).items():
        np.testing.assert_array_equal(value, getattr(passed, name))


def one_client(value, heads=("a", "b"), test=False):
    hits = np.full((len(heads), 2), value)
    return ClientHits(heads, hits, hits + 1, hits + 2 if test else None)


def test_stack_fills_unsampled_clients_with_the_generic_model():
    generic = [one_client(v, ("generic",), test=True) for v in (10, 20)]
    scores = PersonalScores.stack([3, 8], [one_client(1, test=True), None], generic)
    assert scores.heads == ("a", "b")
    assert scores.cids.tolist() == [3, 8]
    assert scores.hits[:, :, 0].tolist() == [[1, 1], [20, 20]]
    assert scores.hits_held[:, :, 0].tolist() == [[2, 2], [21, 21]]
    assert scores.hits_test[:, :, 0].tolist() == [[3, 3], [22, 22]]
    assert scores.generic_hits[:, 0].tolist() == [10, 20]
    assert scores.generic_hits_test[:, 0].tolist() == [12, 22]


def test_stack_without_any_personal_model_is_the_generic_one():
    scores = PersonalScores.stack([0], [None], [one_client(7, ("generic",))])
    assert scores.heads == ("generic",)
    assert scores.hits.tolist() == [[[7, 7]]]
    assert scores.hits_test is None


def test_stack_refuses_different_heads():
    pair = [one_client(1), one_client(1, ("a", "c"))]
    with pytest.raises(FedltError, match="heads differ"):
        PersonalScores.stack([0, 1], pair, [one_client(1, ("generic",))] * 2)


def test_forty_clients_take_seconds_not_minutes():
    """40 clients x 4 heads x 10,000 images x 10 classes: 0.3 s on one core; 5 s is the alarm."""
    features, labels = torch.randn(10_000, 1, 64), torch.arange(10_000) % 10
    heads = {name: torch.nn.Linear(64, 10) for name in "abcd"}
    start = time.perf_counter()
    for _ in range(40):
        score_client(features, labels, heads, mean, class_counts=np.ones(10), block_size=500)
    assert time.perf_counter() - start < 5
    assert isinstance(score_generic(features, labels, heads, mean, block_size=500), GenericScores)
