"""Nesterov's momentum and the clip of gradients against PyTorch's own; gradients by hand."""

from __future__ import annotations

import pytest
import torch

from fedlt.optim.adamw import AdamW
from fedlt.optim.sgd import ParameterGroup, Sgd, clipped, descend_rows, gradient_weight

SIZES = ((7, 5), (33,), ())


def drawn(draws, scale=1.0):
    return [scale * torch.randn(size, generator=draws) for size in SIZES]


@pytest.mark.parametrize("clip", [None, 0.5, 1e6])
@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
def test_sgd_has_the_bits_of_pytorchs(momentum, nesterov, clip):
    """Two groups, with decay; the clip is over both, as torch clips a model's parameters."""
    draws = torch.Generator().manual_seed(0)
    start = drawn(draws)
    ours, theirs = ([t.clone().requires_grad_() for t in start] for _ in range(2))
    rule = {"momentum": momentum, "nesterov": nesterov}
    mine = Sgd(
        [ParameterGroup(ours[:2], lr=0.1, weight_decay=0.01),
         ParameterGroup(ours[2:], lr=0.03, weight_decay=0.0)], clip=clip, **rule,
    )  # fmt: skip
    other = torch.optim.SGD(
        [{"params": theirs[:2], "lr": 0.1, "weight_decay": 0.01},
         {"params": theirs[2:], "lr": 0.03}], lr=0.1, foreach=True, **rule,
    )  # fmt: skip
    for _ in range(5):
        for one, two, gradient in zip(ours, theirs, drawn(draws), strict=True):
            one.grad, two.grad = gradient, gradient.clone()
        mine.step()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(theirs, clip)
        other.step()
    assert all(torch.equal(one, two) for one, two in zip(ours, theirs, strict=True))


def test_adamws_gradients_are_clipped_too():
    """A gradient of (3, 4) and a clip of 1: AdamW takes the step of the gradient (0.6, 0.8)."""
    ends = []
    for gradient, clip in (((3.0, 4.0), 1.0), ((0.6, 0.8), None)):
        weight = torch.tensor([1.0, -1.0], requires_grad=True)
        optimizer = AdamW([ParameterGroup([weight], lr=0.1, weight_decay=0.0)], clip=clip)
        for _ in range(2):
            weight.grad = torch.tensor(gradient)
            optimizer.step()
        ends.append(weight.detach())
    torch.testing.assert_close(*ends)


def test_rows_are_clipped_and_stepped_one_by_one():
    """Three stacked models: each has the gradient and the step that it has alone."""
    draws = torch.Generator().manual_seed(1)
    rows = [drawn(draws, scale) for scale in (0.01, 1.0, 3.0)]
    stacked = [torch.stack(parts) for parts in zip(*rows, strict=True)]
    short = clipped(stacked, 1.5, rows=True)
    for position, own in enumerate(rows):
        parameters = [torch.zeros_like(g).requires_grad_() for g in own]
        for parameter, gradient in zip(parameters, own, strict=True):
            parameter.grad = gradient.clone()
        torch.nn.utils.clip_grad_norm_(parameters, 1.5)
        alone = clipped(own, 1.5)
        for parameter, mine, one in zip(parameters, short, alone, strict=True):
            torch.testing.assert_close(mine[position], parameter.grad)
            torch.testing.assert_close(one, parameter.grad)
    rates = torch.tensor([0.1, 0.2, 0.3])
    values, buffers = [torch.zeros_like(g) for g in stacked], [torch.zeros_like(g) for g in stacked]
    for _ in range(3):
        rule = {"weight_decay": 0.01, "momentum": 0.9, "nesterov": True}
        descend_rows(values, [g.clone() for g in stacked], buffers, rates=rates, **rule)
    for position, own in enumerate(rows):
        alone = [torch.zeros_like(g).requires_grad_() for g in own]
        lr = float(rates[position])
        other = torch.optim.SGD(alone, lr=lr, momentum=0.9, weight_decay=0.01, nesterov=True)
        for _ in range(3):
            for parameter, gradient in zip(alone, own, strict=True):
                parameter.grad = gradient.clone()
            other.step()
        for mine, parameter in zip(values, alone, strict=True):
            torch.testing.assert_close(mine[position], parameter.detach())


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 9])
def test_the_weight_is_how_far_equal_gradients_carry(steps, nesterov):
    """On a linear loss with slope 1 the parameter falls by lr times the weight, whatever the form.

    The factors of the learning rate change from step to step.
    """
    weight = torch.zeros((), dtype=torch.float64, requires_grad=True)
    group = ParameterGroup([weight], lr=1.0, weight_decay=0.0)
    optimizer = Sgd([group], momentum=0.7, nesterov=nesterov)
    factors = [1 / (k + 1) for k in range(steps)]
    for factor in factors:
        weight.grad = torch.ones((), dtype=torch.float64)
        optimizer.step(factor)
    expected = gradient_weight(factors, 0.7, nesterov=nesterov)
    assert -float(weight.detach()) == pytest.approx(expected, rel=1e-12)


def test_nesterovs_weight_in_closed_form():
    """K steps hold gradient j once plainly and r (1 + .. + r^(K-j)) times in buffers, j from 1.

    Two steps, r = 0.5: 1 + 0.5 * 1.5 for the first, 1 + 0.5 for the second: 1.75 + 1.5 = 3.25.
    """
    assert gradient_weight([1.0, 1.0], 0.5, nesterov=True) == 3.25
