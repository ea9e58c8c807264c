"""pFedMe against its inner and outer steps written out on softmax regression."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedlt.errors import FedltError, RunError
from fedlt.flower.server_half import make_server_half
from fedlt.strategy import Total
from strategies import PFedMe

FLAT = """
from torch import nn


class Flat(nn.Module):
    num_streams = 1

    def __init__(self, *, in_channels, image_size, width, norm):
        super().__init__()
        self.num_features = in_channels * image_size**2

    def forward(self, x):
        return x.flatten(1).unsqueeze(1)
"""
NAMES = ("heads.head.weight", "heads.head.bias")


def gradient(weight, bias, inputs, labels):
    """Return the gradient of softmax regression's mean loss."""
    logits = inputs @ weight.T + bias
    soft = np.exp(logits - logits.max(axis=1, keepdims=True))
    soft /= soft.sum(axis=1, keepdims=True)
    error = (soft - np.eye(len(bias))[labels]) / len(labels)
    return error.T @ inputs, error.sum(axis=0)


@pytest.mark.parametrize("beta", [1.0, 0.4])
def test_a_round_by_hand(lab, tmp_path, beta):
    """Two full batches a client (two epochs), K = 3 inner steps each, all clients.

    theta starts at w and goes on from its last value; K times theta <- theta - a (g(theta) +
    lam (theta - w)), then w <- w - eta lam (w - theta). The server takes (1 - beta) w + beta times
    the plain mean of the clients' w, whatever their sizes.
    """
    path = tmp_path / "flat.py"
    path.write_text(FLAT)
    lam, steps, eta, rate = 2.0, 3, 0.1, 0.2
    options = {"lam": lam, "inner_steps": steps, "outer_lr": eta, "beta": beta}
    changes = {
        "model": {"name": f"{path}:Flat"},
        "strategy": {"name": "pfedme", **options},
        "local": {"batch_size": 10_000, "lr": rate, "momentum": 0.0, "epochs": 2},
        "clients_per_round": None,
        "rounds": 1,
    }
    federation = lab.federation(**changes)
    data, outcome = federation.observer.data, lab.run(**changes)
    mean, std = (np.asarray(value).reshape(1, -1, 1, 1) for value in (data.mean, data.std))
    images = ((data.train_images / 255 - mean) / std).reshape(len(data.train_images), -1)
    start = [federation.view.build_model().state()[name].double().numpy() for name in NAMES]
    ends = []
    for cid, own in enumerate(data.partition.clients):
        inputs, labels = images[own], data.train_labels[own]
        w, theta = start, start
        for _ in range(2):
            for _ in range(steps):
                slopes = gradient(*theta, inputs, labels)
                theta = [
                    t - rate * (g + lam * (t - c)) for t, g, c in zip(theta, slopes, w, strict=True)
                ]
            w = [c - eta * lam * (c - t) for c, t in zip(w, theta, strict=True)]
        ends.append(w)
        for name, value in zip(NAMES, theta, strict=True):
            found = outcome.personal[cid][f"own.{name}"].numpy()
            np.testing.assert_allclose(found, value, rtol=1e-4, atol=1e-6)
    for position, name in enumerate(NAMES):
        average = np.mean([end[position] for end in ends], axis=0)
        expected = (1 - beta) * start[position] + beta * average
        found = outcome.checkpoint.tensors["broadcast"][name].numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_with_beta_one_the_server_takes_the_mean(lab):
    """To the bit, whatever it had before."""
    server = make_server_half(lab.federation(strategy="pfedme").view)
    sums = {n: torch.randn(t.shape) for n, t in server.state.broadcast.items()}
    total = Total(sums, 3.0, (0, 1, 2), 5)
    after = PFedMe(beta=1.0).aggregate(server.state, total).broadcast
    assert all(torch.equal(after[name], value / 3.0) for name, value in sums.items())


def test_what_diverges_is_refused(lab):
    strategy = {"name": "pfedme", "lam": 15.0, "outer_lr": 0.1}
    with pytest.raises(FedltError, match=r"outer_lr: times lam it is 1.5, above 1"):
        lab.federation(strategy=strategy)
    lab.federation(strategy={**strategy, "outer_lr": 1 / 15})
    with pytest.raises(FedltError, match=r"inner_steps is 0; expected at least 1"):
        lab.federation(strategy={"name": "pfedme", "inner_steps": 0})
    with pytest.raises(RunError, match=r"lam: times local.lr it is 7.5, above 3"):
        lab.run(strategy="pfedme", local={"lr": 0.5, "momentum": 0.5})
