"""MDCS's losses against NumPy and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fedlt.losses import (
    balanced_softmax,
    consistency,
    cross_entropy,
    diversity,
    expert_offsets,
)

LAMBDAS = (-0.5, 1.0, 2.5)


def draw(*shape, seed=0, scale=3.0):
    return torch.tensor(np.random.default_rng(seed).normal(size=shape) * scale)


def log_softmax(values):
    return values - np.log(np.exp(values).sum(axis=-1, keepdims=True))


# ---- diversity


@pytest.mark.parametrize(("lam", "expected"), [(-0.5, 1.852655), (1.0, 4.057207), (2.5, 7.000382)])
def test_shifted_cross_entropy_by_hand(lam, expected):
    """n = (50, 20, 5, 1), z = (1, 2, 0, -1), y = 2: log sum e^z_c n_c^lam - z_2 - lam log 5."""
    counts, logits = np.array([50.0, 20, 5, 1]), np.array([1.0, 2, 0, -1])
    by_hand = math.log((np.exp(logits) * counts**lam).sum()) - lam * math.log(5)
    for prior in (counts, counts / counts.sum()):  # a constant changes nothing
        offsets = expert_offsets(torch.tensor(prior).log(), (lam,))
        found = diversity(torch.tensor(logits)[None, None] + offsets, torch.tensor([2]))
        assert found.item() == pytest.approx(by_hand, abs=1e-6)
        assert found.item() == pytest.approx(expected, abs=1e-6)


def test_it_is_a_sum_over_experts():
    logits, labels = draw(6, 3, 4), torch.tensor([0, 1, 2, 3, 1, 1])
    single = [cross_entropy(logits[:, k], labels) for k in range(3)]
    torch.testing.assert_close(diversity(logits, labels), torch.stack(single).sum())


def test_special_lambdas():
    """0 is cross-entropy, 1 balanced softmax; with equal counts every lambda is cross-entropy."""
    logits, labels = draw(6, 1, 4), torch.tensor([0, 1, 2, 3, 1, 1])
    log_prior = torch.tensor([50.0, 20, 5, 1]).log()
    plain = cross_entropy(logits, labels)
    assert torch.equal(diversity(logits + expert_offsets(log_prior, (0.0,)), labels), plain)
    balanced = diversity(logits + expert_offsets(log_prior, (1.0,)), labels)
    assert torch.equal(balanced, balanced_softmax(logits, labels, log_prior))
    for lam in LAMBDAS:
        equal = expert_offsets(torch.full((4,), 7.0).log(), (lam,))
        torch.testing.assert_close(diversity(logits + equal, labels), plain)


def test_the_mean_of_the_best_logits_is_unbiased():
    """z_k = log p(x|y) + (1 - lambda_k) log prior is each expert's best; their lambdas' mean is 1.

    That it is the best: shifted by lambda_k log prior its softmax is the posterior.
    """
    likelihood, prior = np.random.default_rng(0).random((5, 4)), np.array([0.7, 0.2, 0.08, 0.02])
    offsets = expert_offsets(torch.tensor(prior).log(), LAMBDAS).numpy()
    best = np.stack([np.log(likelihood) + (1 - lam) * np.log(prior) for lam in LAMBDAS], axis=1)
    posterior = likelihood * prior / (likelihood * prior).sum(axis=1, keepdims=True)
    for k in range(3):
        np.testing.assert_allclose(np.exp(log_softmax(best[:, k] + offsets[k])), posterior)
    np.testing.assert_allclose(best.mean(axis=1), np.log(likelihood))


def test_an_absent_class_is_out_of_every_softmax():
    """n^-0.5 is infinite at 0: the public formula gives NaN. Here the class gets no gradient."""
    log_prior = torch.tensor([math.log(50), -1e4, math.log(5), 0.0])
    offsets = expert_offsets(log_prior, LAMBDAS)
    assert offsets[:, 1].tolist() == [-1e4] * 3
    assert offsets[:, 3].tolist() == [0.0] * 3  # one image: log 1
    logits = draw(4, 3, 4, scale=10.0).requires_grad_()
    loss = diversity(logits + offsets, torch.tensor([0, 2, 3, 0]))
    loss = loss + consistency(*(logits + offsets).chunk(2), torch.tensor([0, 2]))
    loss.backward()
    assert bool(torch.isfinite(loss))
    assert logits.grad[:, :, 1].eq(0).all()
    assert logits.grad[:, :, 0].ne(0).all()


def test_a_single_class_has_no_loss_and_no_gradient():
    offsets = expert_offsets(torch.tensor([-1e4, math.log(9), -1e4]), LAMBDAS)
    logits, labels = draw(4, 3, 3).requires_grad_(), torch.tensor([1, 1, 1, 1])
    loss = diversity(logits + offsets, labels)
    loss = loss + consistency(*(logits + offsets).chunk(2), labels[:2])
    loss.backward()
    assert loss.item() == 0.0
    assert logits.grad.eq(0).all()


# ---- consistency


def by_hand(weak, strong, labels, tau):
    """Sum over experts of the mean over the images whose weak view is right, one by one."""
    total = 0.0
    for k in range(weak.shape[1]):
        kept = []
        for one, other, label in zip(weak[:, k], strong[:, k], labels, strict=True):
            p, q = log_softmax(one / tau), log_softmax(other / tau)
            if one.argmax() == label:
                kept.append(tau**2 * np.exp(p) @ (p - q))
        total += np.mean(kept) if kept else 0.0
    return total


@pytest.mark.parametrize("tau", [1.0, 2.0])
def test_against_numpy(tau):
    weak, strong, labels = draw(12, 3, 4), draw(12, 3, 4, seed=1), np.arange(12) % 4
    counts = [(weak[:, k].argmax(-1).numpy() == labels).sum() for k in range(3)]
    assert len(set(counts)) > 1  # the experts' means are over different numbers of images
    found = consistency(weak, strong, torch.tensor(labels), tau=tau)
    assert found.item() == pytest.approx(by_hand(weak.numpy(), strong.numpy(), labels, tau))


def test_a_known_divergence():
    """KL(softmax(2, 0, 0) || uniform) = log 3 - entropy."""
    weak = torch.tensor([[[2.0, 0.0, 0.0]]])
    found = consistency(weak, torch.zeros(1, 1, 3), torch.tensor([0]))
    assert found.item() == pytest.approx(0.433040, abs=1e-6)


def test_only_confident_images_count_and_the_teacher_has_no_gradient():
    weak, strong = draw(4, 2, 3).requires_grad_(), draw(4, 2, 3, seed=1).requires_grad_()
    labels = weak[:, 0].argmax(-1)
    wrong = weak.detach().argmax(-1) != labels[:, None]
    assert wrong[:, 1].any()
    loss = consistency(weak, strong, labels)
    loss.backward()
    assert weak.grad is None or weak.grad.eq(0).all()
    assert strong.grad[wrong].eq(0).all()
    other = torch.where(wrong[:, :, None], 100 * draw(4, 2, 3, seed=2), strong.detach())
    torch.testing.assert_close(consistency(weak, other, labels), loss.detach())


def test_no_confident_image_is_zero():
    weak = torch.tensor([[[3.0, 0.0], [3.0, 0.0]]])
    strong = draw(1, 2, 2).float().requires_grad_()
    loss = consistency(weak, strong, torch.tensor([1]))
    loss.backward()
    assert loss.item() == 0.0
    assert strong.grad.eq(0).all()
