"""Long-tail losses against second implementations in NumPy, and what each reduces to."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.func import grad, vmap

from fedlt.losses import (
    balanced_softmax,
    calibration,
    class_weighted_cross_entropy,
    cross_entropy,
    effective_number_weights,
    fedlc,
    focal,
    importance_weights,
    ldam,
    ldam_margins,
    logit_adjusted,
    masked_divergence,
    not_true,
)

COUNTS = np.array([90, 9, 1, 0])
PRIOR = np.log(np.where(COUNTS > 0, COUNTS, 1)) - 1e4 * (COUNTS == 0)
LABELS = np.array([0, 1, 2, 0, 1])
RATIOS = np.array([0.1 / 0.9, 0.2 / 0.09, 0.3 / 0.01, 0])  # p / q_k of p = .1, .2, .3, .4


@pytest.fixture
def logits():
    return np.random.default_rng(3).normal(size=(5, 2, 4)) * 2  # (B, S, C)


def log_softmax(values):
    values = values - values.max(axis=-1, keepdims=True)
    return values - np.log(np.exp(values).sum(axis=-1, keepdims=True))


def own_class(log_p):
    """Return the entries of the true classes, (B, S)."""
    return np.take_along_axis(log_p, LABELS[:, None, None], axis=-1)[..., 0]


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def numpy_fedlc(logits, tau=0.7):
    """Equation: -log of e^(z_y - tau n_y^-1/4) over the sum of the same for classes with n > 0."""
    held = COUNTS > 0
    calibrated = np.exp(logits[..., held] - tau * COUNTS[held] ** -0.25)
    share = calibrated / calibrated.sum(axis=-1, keepdims=True)
    return -np.log(np.take_along_axis(share, LABELS[:, None, None], axis=-1)).mean()


def numpy_focal(logits, gamma=1.5):
    p = np.exp(own_class(log_softmax(logits)))
    return (-((1 - p) ** gamma) * np.log(p)).mean()


def numpy_ldam(logits, weights):
    """s 30, largest margin 0.5: the margins of 90, 9 and 1 images are 0.5 n^(-1/4).

    The authors' code divides by the weights in the batch, over both streams.
    """
    margin = 30 * 0.5 * np.maximum(COUNTS, 1) ** -0.25
    shifted = logits.copy()
    for row, label in zip(shifted, LABELS, strict=True):
        row[:, label] -= margin[label]
    own = weights[LABELS][:, None] * own_class(log_softmax(shifted))
    return -own.sum() / (2 * weights[LABELS].sum())


def numpy_effective(beta=0.9):
    """(1 - beta) / (1 - beta^n), by the geometric series 1 / (1 + beta + ... + beta^(n - 1))."""
    held = [1 / sum(beta**i for i in range(n)) if n else 0.0 for n in COUNTS]
    return np.array(held) / (sum(held) / 3)


def numpy_weighted(logits, weights, divisor):
    return -(weights[LABELS][:, None] * own_class(log_softmax(logits))).sum() / divisor


def of_counts(function, **options):
    return function(torch.tensor(COUNTS), **options).double()


CASES = {
    "logit_adjustment": (
        lambda z, y: logit_adjusted(z, y, tensor(PRIOR), tau=1.5),
        lambda z: -own_class(log_softmax(z + 1.5 * PRIOR)).mean(),
    ),
    "fedlc": (lambda z, y: fedlc(z, y, of_counts(calibration, tau=0.7)), numpy_fedlc),
    "focal": (lambda z, y: focal(z, y, gamma=1.5), numpy_focal),
    "ldam": (
        lambda z, y: ldam(
            z,
            y,
            30 * of_counts(ldam_margins, max_margin=0.5),
            of_counts(effective_number_weights, beta=0.9),
        ),
        lambda z: numpy_ldam(z, numpy_effective()),
    ),
    "class_balanced": (
        lambda z, y: class_weighted_cross_entropy(
            z, y, of_counts(effective_number_weights, beta=0.9), divide_by="images"
        ),
        lambda z: numpy_weighted(z, numpy_effective(), 10),  # 5 images, 2 streams
    ),
    "fedir": (
        lambda z, y: class_weighted_cross_entropy(
            z,
            y,
            of_counts(importance_weights, log_prior=tensor([10.0, 20, 30, 40]).log()),
            divide_by="weights",
        ),
        lambda z: numpy_weighted(z, RATIOS, 2 * RATIOS[LABELS].sum()),
    ),
}  # fmt: skip
cases = pytest.mark.parametrize(("loss", "by_hand"), CASES.values(), ids=CASES)


@cases
def test_loss_is_that_of_numpy(logits, loss, by_hand):
    found = loss(tensor(logits), torch.tensor(LABELS)).item()
    assert found == pytest.approx(by_hand(logits), rel=1e-6)


@cases
def test_gradient_is_that_of_differences(logits, loss, by_hand):
    """The central differences of the NumPy form, step 1e-5."""
    given = tensor(logits).requires_grad_()
    loss(given, torch.tensor(LABELS)).backward()
    for index in np.ndindex(logits.shape):
        step = np.zeros_like(logits)
        step[index] = 1e-5
        slope = (by_hand(logits + step) - by_hand(logits - step)) / 2e-5
        assert given.grad[index].item() == pytest.approx(slope, abs=2e-6)


@cases
def test_losses_stack(logits, loss, by_hand):
    many = torch.stack([tensor(logits), -tensor(logits)])
    labels = torch.tensor(LABELS).expand(2, -1)
    stacked = vmap(grad(loss))(many, labels)
    for one, found in zip(many, stacked, strict=True):
        torch.testing.assert_close(found, grad(loss)(one, labels[0]))


def bits(loss, logits):
    given = torch.tensor(logits, dtype=torch.float32).requires_grad_()
    value = loss(given, torch.tensor(LABELS))
    value.backward()
    return value.item(), given.grad


@pytest.mark.parametrize(
    "loss",
    [
        lambda z, y: logit_adjusted(z, y, torch.tensor(PRIOR).float(), tau=0.0),
        lambda z, y: fedlc(z, y, calibration(torch.full((4,), 7), tau=0.0)),
        lambda z, y: class_weighted_cross_entropy(
            z, y, effective_number_weights(torch.full((4,), 7), beta=0.999), divide_by="images"
        ),
        lambda z, y: class_weighted_cross_entropy(
            z, y, importance_weights(torch.full((4,), 7), torch.zeros(4)), divide_by="weights"
        ),
        lambda z, y: ldam(z, y, torch.zeros(4), torch.ones(4)),
    ],
)
def test_reduces_to_cross_entropy_bit_for_bit(logits, loss):
    value, gradient = bits(loss, logits)
    expected, wanted = bits(cross_entropy, logits)
    assert value == expected
    assert torch.equal(gradient, wanted)


def test_focal_without_gamma_is_cross_entropy(logits):
    value, gradient = bits(lambda z, y: focal(z, y, gamma=0.0), logits)
    expected, wanted = bits(cross_entropy, logits)
    assert value == pytest.approx(expected, rel=1e-6)
    assert torch.equal(gradient, wanted)


def test_focal_gradient_is_finite_where_the_answer_is_certain():
    given = torch.tensor([[200.0, 0.0]], requires_grad=True)
    focal(given, torch.tensor([0]), gamma=0.5).backward()
    assert given.grad.isfinite().all()


def test_equal_counts_leave_cross_entropy(logits):
    plain = cross_entropy(torch.tensor(logits), torch.tensor(LABELS))
    equal = torch.full((4,), 5)
    z, y = torch.tensor(logits), torch.tensor(LABELS)
    torch.testing.assert_close(fedlc(z, y, calibration(equal, tau=2.0)), plain)
    torch.testing.assert_close(logit_adjusted(z, y, equal.log(), tau=2.0), plain)


def test_tau_1_is_balanced_softmax(logits):
    z, y, prior = torch.tensor(logits), torch.tensor(LABELS), torch.tensor(PRIOR)
    assert torch.equal(logit_adjusted(z, y, prior, tau=1.0), balanced_softmax(z, y, prior))


@pytest.mark.parametrize("offsets", [calibration(torch.tensor(COUNTS), tau=0.5)])
def test_an_absent_class_gets_no_gradient(logits, offsets):
    _, gradient = bits(lambda z, y: fedlc(z, y, offsets), logits)
    assert gradient[..., 3].eq(0).all()
    assert gradient[..., :3].ne(0).all()


def test_margins_of_absent_classes_are_the_largest():
    margins = ldam_margins(torch.tensor([0, 16, 81]), max_margin=0.3)
    assert margins.tolist() == pytest.approx([0.3, 0.3, 0.2])


# ---- distillation


def numpy_divergence(student, teacher, student_mask, teacher_mask, tau):
    total = 0.0
    for b, s in np.ndindex(student.shape[:2]):
        own, wanted = student_mask[b], teacher_mask[b]
        if wanted.any():
            p = np.exp(log_softmax(teacher[b, s][wanted] / tau))
            log_q = log_softmax(np.where(own, student[b, s], -np.inf) / tau)[wanted]
            total += (p * (np.log(p) - log_q)).sum()
    return total / student.shape[0] / student.shape[1]


def test_divergence_is_that_of_numpy(logits):
    """The third image has no class left in the teacher's softmax and counts as 0."""
    teacher = np.random.default_rng(5).normal(size=logits.shape)
    own = LABELS[:, None] != np.arange(4)
    wanted = own & (np.arange(4) >= 2)
    wanted[2] = False
    found = masked_divergence(
        tensor(logits),
        tensor(teacher),
        not_true(torch.tensor(LABELS), 4),
        torch.tensor(wanted)[:, None],
        tau=1.7,
    )
    expected = numpy_divergence(logits, teacher, own, wanted, 1.7)
    assert found.item() == pytest.approx(expected, rel=1e-9)
    equal = masked_divergence(
        tensor(teacher), tensor(teacher), torch.tensor(True), torch.tensor(True), tau=1.0
    )
    assert equal.item() == 0.0


def test_left_out_logits_get_no_gradient(logits):
    given = tensor(logits).requires_grad_()
    mask = not_true(torch.tensor(LABELS), 4)
    masked_divergence(given, tensor(logits[::-1].copy()), mask, mask, tau=1.0).backward()
    assert given.grad.abs().gt(0).eq(mask.expand(5, 2, 4)).all()
