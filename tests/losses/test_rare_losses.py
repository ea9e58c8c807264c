"""Equalisation and SCoRe against NumPy, with loops over images; gradients by differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedlt.losses import (
    cross_entropy,
    equalisation,
    facility_location,
    graph_cut,
    kept_in_softmax,
)


def drawn(batch=7, streams=2, classes=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, streams, classes, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, classes - 1, (batch,), generator=generator)  # the last is absent
    return logits, labels


def test_equalisation_by_hand():
    """-log(e^z_y / sum of w_c e^z_c), w_c = 1 - beta_c T_c (1 - y_c)."""
    logits, labels = drawn()
    beta = np.random.default_rng(0).random((7, 5)) < 0.6
    tail = np.array([False, True, False, True, True])
    total = 0.0
    for i, row in enumerate(logits.numpy()):
        for z in row:
            weights = [1 - beta[i, c] * tail[c] * (c != labels[i]) for c in range(5)]
            total -= z[labels[i]] - np.log(np.dot(weights, np.exp(z)))
    kept = kept_in_softmax(labels, torch.tensor(tail), torch.tensor(beta))
    assert equalisation(logits, labels, kept).item() == pytest.approx(total / 14)


def test_a_class_that_is_left_out_gets_no_gradient_from_the_image():
    logits, labels = drawn()
    rare = torch.tensor([True] * 5)
    kept = kept_in_softmax(labels, rare, torch.ones(7, 5, dtype=torch.bool))
    logits.requires_grad_()
    equalisation(logits, labels, kept).backward()
    assert float(logits.grad.abs().max()) == 0.0  # every image keeps its own class alone: CE of 0
    none = kept_in_softmax(labels, ~rare, torch.ones(7, 5, dtype=torch.bool))
    found = equalisation(logits, labels, none)
    assert torch.equal(found, cross_entropy(logits, labels))


def cosines(logits, stream):
    rows = logits[:, stream].numpy()
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return rows @ rows.T


def by_hand(logits, labels, cut):
    """sum_k f(A_k) / |A_k| over |V|, for the set functions as sets."""
    totals = []
    for stream in range(logits.shape[1]):
        similar, everyone, total = cosines(logits, stream), set(range(len(labels))), 0.0
        for k in set(labels.tolist()):
            inside = {i for i in everyone if labels[i] == k}
            outside = everyone - inside
            if cut is None:
                value = sum(max(similar[i, j] for j in inside) for i in outside)
            else:
                value = sum(similar[i, j] for i in inside for j in outside)
                value -= cut * sum(similar[i, j] for i in inside for j in inside)
            total += value / len(inside)
        totals.append(total / len(labels))
    return np.mean(totals)


@pytest.mark.parametrize("cut", [None, 0.0, 1.7])
def test_score_by_sets(cut):
    logits, labels = drawn()
    found = score(logits, labels, cut)
    assert found.item() == pytest.approx(by_hand(logits, labels, cut))


def score(logits, labels, cut):
    if cut is None:
        return facility_location(logits, labels, 5)
    return graph_cut(logits, labels, 5, within=cut)


@pytest.mark.parametrize("cut", [None, 1.7])
def test_score_gradients_by_differences(cut):
    logits, labels = drawn(batch=4, streams=1)
    torch.autograd.gradcheck(lambda z: score(z, labels, cut), logits.requires_grad_())


@pytest.mark.parametrize("cut", [None, 1.0])
def test_score_of_one_image_one_class_and_zero_logits_is_finite(cut):
    for logits in (torch.randn(1, 1, 5), torch.randn(6, 1, 5), torch.zeros(6, 1, 5)):
        logits.requires_grad_()
        loss = score(logits, torch.zeros(len(logits), dtype=torch.int64), cut)
        loss.backward()
        assert bool(loss.isfinite())
        assert bool(logits.grad.isfinite().all())
    if cut is None:
        assert loss.item() == 0.0  # no other class to be near to
