"""Losses: closed forms, streams, reductions, vmap."""

import math

import pytest
import torch
from torch.func import grad, vmap

from fedlt.losses import balanced_softmax, cross_entropy, under_vmap

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 3.0]])
LABELS = torch.tensor([0, 1])


def by_hand(logits: list[float], label: int) -> float:
    return math.log(sum(map(math.exp, logits))) - logits[label]


def test_cross_entropy_by_hand() -> None:
    expected = (by_hand([2, 0, -1], 0) + by_hand([0.5, 0.5, 3], 1)) / 2
    assert cross_entropy(LOGITS, LABELS).item() == pytest.approx(expected, rel=1e-6)


def test_one_stream_is_no_stream_bit_for_bit() -> None:
    assert torch.equal(cross_entropy(LOGITS[:, None], LABELS), cross_entropy(LOGITS, LABELS))


def test_streams_are_averaged() -> None:
    streams = torch.stack([LOGITS, 2 * LOGITS, -LOGITS], dim=1)  # (B, 3, C)
    expected = sum(cross_entropy(k * LOGITS, LABELS) for k in (1, 2, -1)) / 3
    torch.testing.assert_close(cross_entropy(streams, LABELS), expected)


def test_balanced_softmax_is_equation_3_of_the_paper() -> None:
    """-log(n_y e^z_y / sum_c n_c e^z_c) with counts 90, 9, 1, averaged over two images."""
    counts = [90.0, 9.0, 1.0]
    expected = 0.0
    for row, label in zip(LOGITS.tolist(), LABELS.tolist(), strict=True):
        weights = [n * math.exp(z) for n, z in zip(counts, row, strict=True)]
        expected -= math.log(weights[label] / sum(weights)) / 2
    for prior in (torch.tensor(counts), torch.tensor(counts) / 100):
        assert balanced_softmax(LOGITS, LABELS, prior.log()).item() == pytest.approx(expected)


def test_equal_counts_reduce_to_cross_entropy() -> None:
    plain = cross_entropy(LOGITS, LABELS)
    assert torch.equal(balanced_softmax(LOGITS, LABELS, torch.zeros(3)), plain)
    torch.testing.assert_close(balanced_softmax(LOGITS, LABELS, torch.full((3,), 2.3)), plain)


def test_an_absent_class_gets_no_gradient() -> None:
    logits = LOGITS.clone().requires_grad_()
    balanced_softmax(logits, LABELS, torch.tensor([0.0, 0.0, -1e4])).backward()
    assert logits.grad is not None
    assert logits.grad[:, 2].eq(0).all()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("streams", [0, 1, 3])
def test_vmap_agrees_with_a_loop(streams: int) -> None:
    shape = (4, 5, streams, 3) if streams else (4, 5, 3)
    logits, prior = torch.randn(shape), torch.randn(4, 3)
    labels = torch.randint(0, 3, (4, 5))
    stacked = vmap(grad(balanced_softmax))(logits, labels, prior)
    for k in range(4):
        torch.testing.assert_close(
            stacked[k], grad(balanced_softmax)(logits[k], labels[k], prior[k])
        )


@pytest.mark.parametrize("shape", [(1, 10), (7, 3), (64, 100), (16, 2, 5)])
def test_under_vmap_the_gradient_has_the_same_bits(shape):
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(1), requires_grad=True)
    labels = torch.arange(shape[0]) % shape[-1]
    loss = cross_entropy(logits, labels)
    with under_vmap():
        other = cross_entropy(logits, labels)
    torch.testing.assert_close(other, loss, rtol=1e-6, atol=0)
    assert torch.equal(*(torch.autograd.grad(value, logits)[0] for value in (loss, other)))
