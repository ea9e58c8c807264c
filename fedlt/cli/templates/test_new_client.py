"""Tests of NewClient: the contract, and what follows from its equation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from fedlt.check import conformance, subject_of

NAME = f"{Path(__file__).with_name('new_client.py')}:NewClient"

test_contract = conformance(NAME, gamma=2.0)  # one case per promise, as in `fedlt check`


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_loss_by_hand(gamma: float) -> None:
    """The loss is the mean of (1 - p)^gamma CE, p the true class's probability; gamma 0: CE."""
    parties = subject_of(NAME, {"gamma": gamma}).parties
    client = subject_of(NAME, {"gamma": gamma}).bench().client(1)
    client.tensors["held"] = torch.ones(4)  # as if the client held every class
    batch = next(iter(parties.view.plugin.batches(client, 0)))
    logits = client.model(batch.images)  # (B, 1, C)
    plain = cross_entropy(logits.squeeze(1), batch.labels, reduction="none")  # (B,): -log p
    expected = ((1 - torch.exp(-plain)) ** gamma * plain).mean()
    found = parties.view.plugin.loss(logits, batch, client)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
