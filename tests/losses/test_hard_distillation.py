"""The losses of DeiT-LT's tokens, against plain Python and the figures of CIFAR-10-LT."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from clients import DeitLT
from fedlt.losses import (
    ldam_margins,
    mean_weight,
    reweighting,
    soft_cross_entropy,
    weighted_distillation,
)

CIFAR = torch.tensor([5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50])  # imbalance 100
NO_CAP = {"cap": math.inf}


def test_weights_of_cifar10_lt():
    """w_c = (1 - b) / (1 - b^n), scaled to a sum of 10, computed once by hand in double."""
    expected = [0.0506, 0.0769, 0.1211, 0.1950, 0.3188, 0.5246, 0.8683, 1.4426, 2.4092, 3.9927]
    found = reweighting(CIFAR, beta=0.9999, **NO_CAP)
    assert found.tolist() == pytest.approx(expected, abs=6e-5)
    assert found.sum().item() == pytest.approx(10, rel=1e-6)
    assert (found.diff() > 0).all()


def test_margins_of_cifar10_lt():
    """0.5 (50 / n)^(1/4)."""
    expected = [0.1581, 0.1797, 0.2042, 0.2321, 0.2638, 0.2998, 0.3407, 0.3872, 0.4405, 0.5]
    assert ldam_margins(CIFAR, max_margin=0.5).tolist() == pytest.approx(expected, abs=6e-5)


@pytest.mark.parametrize(
    ("largest", "classes", "ratio"), [(5000, 10, 78.9), (500, 100, 97.6)], ids=["c10", "c100"]
)
def test_the_papers_own_weights_are_not_cut(largest, classes, ratio):
    """CIFAR-10-LT and CIFAR-100-LT, imbalance 100: by default the weights are as uneven as there.

    The ratio is (1 - b^n_max) / (1 - b^n_min); a cap of 50 would change both sets.
    """
    sizes = [int(largest * 0.01 ** (rank / (classes - 1))) for rank in range(classes)]
    by_hand = (1 - 0.9999 ** sizes[0]) / (1 - 0.9999 ** sizes[-1])
    assert by_hand == pytest.approx(ratio, abs=0.05)
    assert DeitLT().drw_cap is None
    client = SimpleNamespace(tensors={"known_counts": torch.tensor(sizes)}, round=2, rounds=2)
    found = DeitLT().class_weights(client, 0.9)
    assert (found.max() / found.min()).item() == pytest.approx(by_hand, rel=1e-4)


def test_limits_of_beta():
    counts = torch.tensor([10, 20, 40])
    assert reweighting(counts, beta=0.0, **NO_CAP).tolist() == [1.0, 1.0, 1.0]
    assert reweighting(torch.tensor([7, 7]), beta=0.99, **NO_CAP).tolist() == [1.0, 1.0]
    inverse = [12 / 7, 6 / 7, 3 / 7]  # 1/n, scaled to a sum of 3
    found = reweighting(counts, beta=1 - 1e-9, **NO_CAP)
    assert found.tolist() == pytest.approx(inverse, rel=1e-5)


def test_absent_classes_have_the_largest_weight_and_the_cap_holds():
    """1/n = 1, 1/10, 1/1000; cut at 20 times the smallest: 0.02, 0.02, 0.001, mean 0.0137."""
    counts = torch.tensor([1, 10, 0, 1000])
    found = reweighting(counts, beta=1 - 1e-9, cap=20.0)
    mean = 0.041 / 3
    expected = [0.02 / mean, 0.02 / mean, 0.02 / mean, 0.001 / mean]
    assert found.tolist() == pytest.approx(expected, rel=1e-4)
    assert reweighting(torch.tensor([0, 0]), beta=0.9999, cap=50.0).tolist() == [1.0, 1.0]
    assert reweighting(torch.tensor([0, 5]), beta=0.9999, cap=50.0).tolist() == [1.0, 1.0]


def test_the_mean_weight_of_cifar10_lt_is_below_a_fifth():
    weights = reweighting(CIFAR, beta=0.9999, **NO_CAP)
    by_hand = sum(n * w for n, w in zip(CIFAR.tolist(), weights.tolist(), strict=True)) / 12406
    assert mean_weight(CIFAR, weights).item() == pytest.approx(by_hand)
    assert by_hand == pytest.approx(0.17, abs=0.01)
    assert mean_weight(torch.tensor([0, 0]), torch.ones(2)).item() == 1.0


def ce(row, label):
    return math.log(sum(map(math.exp, row))) - row[label]


def test_distillation_by_hand():
    logits, taught = [[1.0, -1.0, 0.5], [0.0, 2.0, 0.3], [0.2, 0.1, 0.0]], [0, 2, 2]
    weights = [0.5, 1.0, 1.5]
    each = [ce(row, label) for row, label in zip(logits, taught, strict=True)]
    own = [weights[label] for label in taught]
    total = sum(w * loss for w, loss in zip(own, each, strict=True))
    given = torch.tensor(logits), torch.tensor(taught)
    assert weighted_distillation(*given, torch.tensor(weights)).item() == pytest.approx(
        total / sum(own)
    )
    fixed = weighted_distillation(*given, torch.tensor(weights), mean=torch.tensor(0.8))
    assert fixed.item() == pytest.approx(total / (3 * 0.8))
    equal = weighted_distillation(*given, torch.full((3,), 0.7))
    assert equal.item() == pytest.approx(sum(each) / 3)


def test_a_batch_of_one_keeps_its_weight_under_the_fixed_mean_only():
    logits, taught = torch.tensor([[1.0, 0.0]]), torch.tensor([1])
    weights = torch.tensor([0.5, 4.0])
    plain = ce([1.0, 0.0], 1)
    assert weighted_distillation(logits, taught, weights).item() == pytest.approx(plain)
    mean = torch.tensor(2.0)
    fixed = weighted_distillation(logits, taught, weights, mean=mean)
    assert fixed.item() == pytest.approx(2 * plain)


def test_soft_cross_entropy_by_hand():
    logits, targets = [[1.0, -1.0], [0.5, 0.0]], [[0.7, 0.3], [0.05, 0.95]]
    expected = sum(
        t * ce(row, c) for row, ts in zip(logits, targets, strict=True) for c, t in enumerate(ts)
    )
    found = soft_cross_entropy(torch.tensor(logits), torch.tensor(targets))
    assert found.item() == pytest.approx(expected / 2)
