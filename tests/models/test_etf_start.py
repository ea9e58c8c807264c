"""The pace of the first steps through SSE-C: gradients by hand, and when a run says something."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from fedlt.config.local_section import LocalConfig
from fedlt.models import FixedHead, Model
from fedlt.models.etf_start import (
    PUBLISHED_PACE,
    first_rate,
    slow_start,
    spread_images,
    squared_gradient,
)
from fedlt.models.factory import build_model
from fedlt.optim.batch import ClientData


class Linear(nn.Module):
    """Features V x of one-pixel images of three channels, V (2, 3) zero at the start."""

    num_features, num_streams = 2, 1

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2, 3))

    def forward(self, x):
        return (x.flatten(1) @ self.weight.T).unsqueeze(1)


def head(norm):
    """Two opposite class vectors: the simplex of two classes."""
    return FixedHead(torch.tensor([[norm, 0.0], [-norm, 0.0]]))


def pixels(*rows):
    return torch.tensor(rows, dtype=torch.float32)[:, :, None, None]


def data(images):
    size = len(images)
    labels, rows = torch.zeros(size, dtype=torch.int64), torch.arange(size)
    return ClientData(images, labels, rows, torch.tensor([size, 0]), torch.zeros(3), torch.ones(3))


def test_the_gradient_by_hand():
    """V = 0: p = (1/2, 1/2), and the gradient of one image is W^T (p - y) x^T.

    With y = 0 and W = ((n, 0), (-n, 0)) the first factor is (-n, 0), with y = 1 it is (n, 0). Of
    a batch of x_0 (label 0) and x_1 (label 1) the mean is n (x_1 - x_0) / 2 in the first row of V,
    squared n^2 |x_1 - x_0|^2 / 4. For x_0 = (1, 2, 2), x_1 = (1, 2, 0), n = 0.1 that is 0.01.
    """
    model = Model(Linear(), 2)
    images, labels = pixels([1, 2, 2], [1, 2, 0]), torch.tensor([0, 1])
    assert squared_gradient(model, head(0.1), images, labels) == pytest.approx(0.01)
    assert squared_gradient(model, head(0.3), images, labels) == pytest.approx(0.09)
    one = squared_gradient(model, head(0.1), images[:1], labels[:1])
    assert one == pytest.approx(0.09)  # n^2 |x_0|^2
    # Eight black images and one more: the mean of 0 and 0.09.
    batches, zeros = torch.cat([torch.zeros(8, 3, 1, 1), images[:1]]), torch.zeros(9).long()
    assert squared_gradient(model, head(0.1), batches, zeros) == pytest.approx(0.045)


def test_nothing_is_left_behind():
    model = build_model("cnn", image_shape=(1, 8, 8), num_classes=2, width=4, seed=1).eval()
    before = {name: tensor.clone() for name, tensor in model.state().items()}
    images = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(16) % 2
    found = squared_gradient(model, FixedHead(torch.eye(2, 16)), images, labels)
    assert found > 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state().items())
    assert not any(part.training for part in model.modules())
    assert all(p.grad is None for p in model.parameters())
    model.set_group("backbone", "fixed")
    assert squared_gradient(model, FixedHead(torch.eye(2, 16)), images, labels) == 0


@pytest.mark.parametrize(
    ("size", "rows"),
    [
        (3, [0, 1, 2]),
        (8, [0, 1, 2, 3, 4, 5, 6, 7]),
        # 16 of 20, at 20 / 16 = 1.25 apart: 0, 1, 2, 3, 5, 6, 7, 8, 10, ...; every second one each
        (20, [0, 2, 5, 7, 10, 12, 15, 17, 1, 3, 6, 8, 11, 13, 16, 18]),
        (3200, [*range(0, 3200, 400), *range(100, 3200, 400)]),  # the first two of four batches
    ],
)
def test_every_batch_spans_the_images(size, rows):
    images = torch.arange(size, dtype=torch.float32)[:, None, None, None].repeat(1, 3, 1, 1)
    chosen = spread_images(data(images))[:, 0, 0, 0].tolist()
    assert chosen[: len(rows)] == rows
    assert len(chosen) == (32 if size == 3200 else len(rows))


def line(factor):
    """The line at the rate at which a norm of ``factor`` times 0.1 has the published pace.

    Of one image the squared gradient is n^2 |x|^2 = 0.09, as above, whatever its label.
    """
    rate = PUBLISHED_PACE / 0.09 / factor**2
    return slow_start(Model(Linear(), 2), head(0.1), data(pixels([1, 2, 2])), rate)


def test_a_run_far_below_the_published_pace_says_so():
    assert line(1.0) == ""
    assert line(2.6)
    assert line(2.4) == ""
    assert line(0.01) == ""  # faster
    assert "at 0.1 the first steps of this network are 64 times as slow" in line(8.0)
    assert "; 0.8 has their pace, or a larger local.lr" in line(8.0)


def test_where_there_is_no_pace_nothing_is_said():
    model, images = Model(Linear(), 2), pixels([1, 2, 2], [1, 2, 0])
    cosine = FixedHead(torch.eye(2), scale=16.0)
    assert slow_start(model, cosine, data(images), 1e-9) == ""
    assert slow_start(model, head(0.1), data(images[:0]), 1e-9) == ""
    assert slow_start(model, head(0.1), data(torch.zeros_like(images)), 1e-9) == ""
    assert slow_start(model, head(0.1), data(images), 0.0) == ""


def test_the_rate_knows_momentum_and_no_warm_up():
    local = LocalConfig(lr=0.03, momentum=0.5)
    assert first_rate(local, 10) == pytest.approx(0.06)
    assert first_rate(LocalConfig(optimizer="adamw"), 10) == 0
    # Warm-up over all of 10 rounds: the first round has a tenth of the rate.
    warm = LocalConfig(lr=0.003, momentum=0.5, schedule={"warmup": 1.0})
    assert first_rate(warm, 10) == pytest.approx(0.06)


@pytest.mark.slow
def test_the_published_network_starts_at_the_published_pace():
    """ResNet-18, norm 0.1, lr 0.03, momentum 0.5; on noise, the figure is of CIFAR-10."""
    model = build_model("resnet18", image_shape=(3, 32, 32), num_classes=10, seed=1)
    images = torch.randn(32, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    basis = torch.linalg.qr(torch.randn(512, 10, generator=torch.Generator().manual_seed(2))).Q
    vectors = 0.1 * math.sqrt(10 / 9) * (basis - basis.mean(1, keepdim=True)).T
    assert slow_start(model, FixedHead(vectors), data(images), 0.06) == ""
    assert "times as slow" in slow_start(model, FixedHead(vectors), data(images), 0.06 / 64)
