"""MOON: its contrast in NumPy, and which models it holds against each other."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional
from written_out import drawn, start

from fedlt.losses import model_contrast
from fedlt.strategy import prefixed, under
from strategies import MOON


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_contrast_by_its_formula(temperature):
    """-log[e^(s/t) / (e^(s/t) + e^(r/t))] row by row, s and r cosines, in float64."""
    z, toward, away = np.random.default_rng(0).normal(size=(3, 6, 2, 5))

    def cosine(a, b):
        return (a * b).sum(-1) / np.sqrt((a * a).sum(-1) * (b * b).sum(-1))

    s, r = (np.exp(cosine(z, other) / temperature) for other in (toward, away))
    found = model_contrast(*map(torch.from_numpy, (z, toward, away)), temperature=temperature)
    assert float(found) == pytest.approx(float(-np.log(s / (s + r)).mean()), rel=1e-12)


def test_in_a_clients_first_round_the_term_is_a_constant(lab, reference):
    """The previous model is then the global one: the term is log 2, and gives no direction."""
    run, expected = lab.run(strategy={"name": "moon", "mu": 3}, rounds=1), lab.run(rounds=1)
    found, wanted = (r.checkpoint.tensors["broadcast"] for r in (run, expected))
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-5)
    loss, plain = (r.rows[-1]["train/loss"] for r in (run, expected))
    assert loss - plain == pytest.approx(3 * math.log(2), rel=1e-4)


def test_the_objective_holds_the_previous_model_against_the_global_one(lab):
    """Three models of one architecture, each given features by loading it; the term's mu is 2."""
    _, client = start(lab, "moon")
    shift = drawn(client, "", 3)
    previous = {n: t + shift.get(n, 0) for n, t in client.snapshot().items()}
    now = {n: t - shift.get(n, 0) for n, t in client.snapshot().items()}
    batch, features = next(client.batches(1)), {}
    for key, state in (("p", previous), ("g", client.broadcast), ("z", now)):
        client.model.load(state, state)
        features[key] = client.model.features(batch.images).detach()
    s, r = (functional.cosine_similarity(features["z"], features[k], dim=-1) for k in "gp")
    contrast = -torch.log_softmax(torch.stack([s, r]) / 0.5, 0)[0].mean()
    supervised = functional.cross_entropy(client.model(batch.images)[:, 0], batch.labels)
    client.tensors.update(prefixed("previous/", previous))
    found = MOON(mu=2).objective(client, batch)
    assert found.item() == pytest.approx((supervised + 2 * contrast).item(), rel=1e-5)


def test_a_client_keeps_the_model_that_it_trained(lab):
    worker, client = start(lab, "moon")
    update = worker.train(client)
    kept = under("previous/", update.personal)
    assert set(kept) == set(client.model.names())
    assert all(torch.equal(kept[name], tensor) for name, tensor in update.sums.items())
