"""Federated averaging of any network: plain training where one client is alone, means by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from fedlt.generators.fitting import Fit, fit

HOW = Fit(rounds=4, steps=3, batch_size=5, lr=0.05, cohort=9, decay=0.0)
LABELS = torch.tensor([0] * 12 + [1] * 4)
INPUTS = torch.randn(16, 3, generator=torch.Generator().manual_seed(3))


def network():
    torch.manual_seed(0)
    return nn.Linear(3, 2)


def trained(tmp_path, clients, how=HOW, *, name="state", seen=None, after=None):
    """Return a trained network; ``seen`` collects draws, ``after`` is when the run is stopped."""
    net, ticks = network(), []

    def loss(rows, share, generator):
        if seen is not None:
            seen.append(rows)
        return nn.functional.cross_entropy(net(INPUTS[rows]), LABELS[rows])

    def tick():
        ticks.append(1)
        if after is not None and len(ticks) == after:
            raise KeyboardInterrupt

    file = tmp_path / name
    fit(net, loss, clients, LABELS, how, seed=1, purpose="test", file=file, tick=tick)
    return net, len(ticks)


def test_one_client_is_plain_adamw_along_a_cosine(tmp_path):
    seen = []
    found, _ = trained(tmp_path, [torch.arange(16)], seen=seen)
    net = network()
    optimizer = torch.optim.AdamW(net.parameters())
    for step, rows in enumerate(seen):
        optimizer.param_groups[0]["lr"] = 0.05 * 0.5 * (1 + math.cos(math.pi * step / 12))
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(INPUTS[rows]), LABELS[rows]).backward()
        optimizer.step()
    assert len(seen) == 12
    for name, value in net.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], value, atol=1e-7, rtol=1e-6)


def test_a_round_is_the_mean_weighted_by_images(tmp_path):
    """One round of one step: AdamW's first step is lr sign(gradient) beside the weight decay."""
    clients, how = [torch.arange(12), torch.arange(12, 16)], Fit(1, 1, 5, 0.05, 9, 0.0)
    seen = []
    found, _ = trained(tmp_path, clients, how, seen=seen)
    start = network()
    expected = 0
    for rows, share in zip(seen, (12 / 16, 4 / 16), strict=True):
        net = network()
        nn.functional.cross_entropy(net(INPUTS[rows]), LABELS[rows]).backward()
        expected = expected + share * net.weight.grad.sign()
    torch.testing.assert_close(
        found.weight, start.weight * (1 - 0.05 * 0.01) - 0.05 * expected, atol=1e-5, rtol=0
    )
    assert set(seen[1].tolist()) <= set(range(12, 16))


def test_the_running_mean_by_hand(tmp_path):
    """decay min(d, (1 + s) / (10 + s)) for s steps: with s = 1 it is 2 / 11, of the start."""
    how = Fit(1, 1, 5, 0.05, 9, 0.5)
    last, _ = trained(tmp_path, [torch.arange(16)], Fit(1, 1, 5, 0.05, 9, 0.0), name="last")
    mean, _ = trained(tmp_path, [torch.arange(16)], how, name="mean")
    expected = 2 / 11 * network().weight + 9 / 11 * last.weight
    torch.testing.assert_close(mean.weight, expected)


@pytest.mark.parametrize("rounds", [7, 12])
def test_a_stopped_training_goes_on_to_the_same_bits(tmp_path, rounds):
    """States are kept every five rounds: after 7 of 12 it goes on from 5."""
    clients, how = [torch.arange(9), torch.arange(9, 16)], Fit(12, 2, 4, 0.05, 1, 0.9)
    whole, _ = trained(tmp_path, clients, how, name="whole")
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, clients, how, after=rounds)
    on, ticks = trained(tmp_path, clients, how)
    assert ticks == {7: 7, 12: 2}[rounds]
    assert torch.equal(whole.weight, on.weight)


def test_a_damaged_state_is_not_used(tmp_path):
    (tmp_path / "state").write_bytes(b"no tensors")
    found, ticks = trained(tmp_path, [torch.arange(16)])
    assert ticks == HOW.rounds
    assert found.weight.isfinite().all()
