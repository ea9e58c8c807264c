"""FedYoYo: its views, its loss against NumPy, its clock."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clients import FedYoYo, LogitAdjustment
from fedlt.client import Batch
from fedlt.data.distort import distort
from fedlt.flower.server_half import make_server_half
from fedlt.losses import weak_to_strong
from fedlt.worker.worker import Worker

MIX = {"use": "mix", "source": "oracle", "gamma": 0.1}


def client_of(lab, *, round_=1, **changes):
    federation = lab.federation(**{"client": "fedyoyo", "prior": MIX, **changes})
    server, worker = make_server_half(federation.view), Worker(federation.shares)
    state, counts = server.state, server.prior_counts([0])
    settings = {"fixed": state.fixed, "personal": {}, "global_counts": counts}
    return worker.client(1, round_, state.broadcast, **settings)


def log_softmax(values):
    return values - np.log(np.exp(values).sum(axis=-1, keepdims=True))


def by_hand(logits, labels, log_prior, weight, temperature=1.5):
    """CE over 2B rows, and KL at T of the rows whose weak view is right, one by one."""
    soft = log_softmax((logits + log_prior) / temperature)
    log_p = log_softmax(logits + log_prior)
    half = len(labels)
    cross = -np.mean([row[y] for row, y in zip(log_p, [*labels, *labels], strict=True)])
    right = [i for i in range(half) if log_p[i].argmax() == labels[i]]
    kept = [np.exp(soft[i]) @ (soft[i] - soft[half + i]) for i in right]
    return cross + weight * (np.mean(kept) if kept else 0.0), len(right)


@pytest.mark.parametrize(("round_", "grown"), [(1, 0.25), (4, 1.0), (10, 1.0)])
def test_the_loss_by_hand(lab, round_, grown):
    """0.4 of 10 rounds of warm-up: a quarter of the weight in the first."""
    client = client_of(lab, round_=round_, rounds=10)
    generator = np.random.default_rng(0)
    logits, labels = generator.normal(size=(16, 4)) * 3, generator.integers(0, 4, 8)
    log_prior = 1.3 * client.tensors["log_prior"].double().numpy()
    expected, right = by_hand(logits, labels, log_prior, 2.0 * grown)
    assert 0 < right < 8
    batch = Batch(torch.zeros(16, 1, 8, 8), torch.tensor(labels).repeat(2))
    plugin = FedYoYo(weight=2.0, tau=1.3, warmup=0.4)
    assert plugin.loss(torch.tensor(logits)[:, None], batch, client).item() == pytest.approx(
        expected
    )


def test_the_teacher_gets_no_gradient_and_none_right_is_zero():
    weak = torch.tensor([[[3.0, 0.0]], [[3.0, 0.0]]], requires_grad=True)
    strong = torch.tensor([[[0.0, 1.0]], [[0.0, 1.0]]], requires_grad=True)
    weak_to_strong(weak, strong, torch.tensor([0, 1])).backward()
    assert weak.grad is None
    assert strong.grad[0].abs().sum() > 0
    assert strong.grad[1].abs().sum() == 0  # the weak view has it wrong
    assert weak_to_strong(weak, strong, torch.tensor([1, 1])).item() == 0.0


def test_without_distillation_it_is_logit_adjustment_of_both_views(lab):
    client = client_of(lab)
    batch = next(client.batches(1))
    logits = client.model(batch.images)
    found = FedYoYo(weight=0.0, tau=0.7).loss(logits, batch, client)
    assert torch.equal(found, LogitAdjustment(tau=0.7).loss(logits, batch, client))


def test_a_batch_is_weak_views_then_strong_ones(lab):
    client, plain = client_of(lab), client_of(lab, client="cross_entropy")
    client.plugin = FedYoYo(rotation=0.0)
    for both, weak in zip(client.batches(1), plain.batches(1), strict=True):
        count = len(weak.labels)
        assert torch.equal(both.images[:count], weak.images)
        assert torch.equal(both.labels, weak.labels.repeat(2))
        assert not torch.equal(both.images[count:], weak.images)


def test_the_defaults_are_those_of_the_published_run():
    """The run gives lambda 4 and a warm-up of 50 of 300 rounds, and leaves T and tau at 1.5."""
    plugin = FedYoYo()
    assert (plugin.weight, plugin.temperature, plugin.tau) == (4.0, 1.5, 1.5)
    assert plugin.warmup * 300 == pytest.approx(50)
    assert (plugin.rotation, plugin.strong) == (15.0, "autoaugment")


# ---- strong views


def views(images, seed=0):
    return distort(images, torch.Generator().manual_seed(seed))


def test_views_are_a_function_of_the_generator():
    images = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    before = images.clone()
    assert torch.equal(views(images), views(images))
    assert not torch.equal(views(images), views(images, seed=1))
    assert torch.equal(images, before)


def test_a_flat_image_shows_shift_tone_and_cutout():
    """Of 16 x 16 ones: at most a quarter is cut, a shift by at most 2 leaves 14 x 14.

    About its mean m <= 1 the image's ones become (1 - m) c + m + b.
    """
    found = views(torch.ones(200, 1, 16, 16))
    zeros = found.eq(0).flatten(1).sum(1)
    assert zeros.max() <= 64
    assert zeros.min() >= 16  # a square whose centre is in the corner
    largest = found.flatten(1).amax(1)
    assert largest.min() >= 1 - 0.4 - 0.4 * 60 / 256
    assert largest.max() <= 1 + 0.4 + 0.4 * 60 / 256
    assert largest.std() > 0.1
