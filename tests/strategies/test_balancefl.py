"""BalanceFL: its batches, its noise and its loss against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedlt.flower.server_half import make_server_half
from fedlt.models.class_statistics import class_deviations
from fedlt.worker.worker import Worker
from strategies import BalanceFL

SETTINGS = {
    "strategy": "balancefl",
    "model": {"name": "mlp", "width": 4, "norm": "group"},
    "partition": {"scheme": "shards", "shards_per_client": 2},
}


def client_of(lab, **changes):
    """Return the first client that holds some classes, not all, and unequally many images."""
    federation = lab.federation(**{**SETTINGS, **changes})
    counts = federation.observer.data.client_counts
    ways = [len(set(row[row > 0].tolist())) > 1 and row.min() == 0 for row in counts]
    server, worker = make_server_half(federation.view), Worker(federation.shares)
    state = server.state
    return worker.client(ways.index(True), 1, state.broadcast, fixed=state.fixed, personal={})


def given_batches(client, strategy):
    """Return the batches that a task would train on."""
    seen = []

    def trainer(_, phase):
        seen.extend(phase.batches)
        return {"loss": 0.0, "examples": 1.0, "steps": 1.0}

    client.trainer = trainer
    strategy.local_update(client)
    return seen


def test_every_held_class_is_drawn_as_often(lab):
    client = client_of(lab, local={"epochs": 60})
    counts = client.data.class_counts.numpy()
    held = counts > 0
    assert 1 < held.sum() < 4
    assert counts[held].min() < counts.max()
    batches = given_batches(client, BalanceFL())
    drawn = np.bincount(torch.cat([b.labels for b in batches]).numpy(), minlength=4)
    assert drawn.sum() == 60 * counts.sum()
    expected = drawn.sum() / held.sum()
    assert np.abs(drawn[held] - expected).max() < 4 * np.sqrt(expected)
    assert client.data.class_counts.tolist() == counts.tolist()
    assert client.data.num_examples == counts.sum()


def test_the_noise_has_the_covariance_of_the_classes(lab):
    """The rarer class gets it at the rate 1 - n / n_max, the most frequent one never."""
    client = client_of(lab, local={"epochs": 600, "batch_size": 64})
    counts = client.data.class_counts.numpy()
    images = client.data.images[client.data.indices].float()[:, 0] / 255
    images = ((images - client.data.mean) / client.data.std)[:, None]
    with torch.no_grad():
        features = client.model.eval().features(images)[:, 0].numpy()
    labels = client.data.labels[client.data.indices].numpy()
    parts = [(features[labels == c], n) for c, n in enumerate(counts) if n > 1]
    expected = sum(n * np.cov(given.T) for given, n in parts) / counts.sum()
    batches = given_batches(client, BalanceFL(noise=2.0))
    noise = torch.cat([b.extra["noise"] for b in batches])[:, 0].numpy()
    drawn = torch.cat([b.labels for b in batches]).numpy()
    is_noisy = np.abs(noise).max(axis=1) > 0
    assert not is_noisy[drawn == counts.argmax()].any()
    rare = np.flatnonzero((counts > 0) & (counts < counts.max()))[0]
    rate = is_noisy[drawn == rare].mean()
    assert rate == pytest.approx(1 - counts[rare] / counts.max(), abs=0.06)
    found = np.cov(noise[is_noisy].T)
    assert np.linalg.norm(found - 4 * expected) < 0.2 * np.linalg.norm(4 * expected)


def test_deviations_are_numpys_covariances():
    generator = np.random.default_rng(0)
    features, labels = generator.normal(size=(9, 3)), np.array([0, 0, 0, 0, 2, 2, 2, 3, 2])
    expected = (4 * np.cov(features[:4].T) + 4 * np.cov(features[labels == 2].T)) / 9
    rows = class_deviations(torch.tensor(features), torch.tensor(labels), 5)
    np.testing.assert_allclose((rows.T @ rows).numpy(), expected, atol=1e-6)


def soft(values):
    powers = np.exp(values - values.max())
    return powers / powers.sum()


def test_the_loss_by_hand(lab):
    """CE and entropy over held classes, CE with the noise; KL over absent ones at tau."""
    client = client_of(lab, local={"epochs": 60})
    strategy = BalanceFL(weight=0.7, tau=1.5, smooth=0.3)
    batch = max(given_batches(client, strategy), key=lambda b: b.extra["noise"].abs().max())
    assert batch.extra["noise"].abs().max() > 0
    with torch.no_grad():
        before = client.model(batch.images)[:, 0].double().numpy()
        for parameter in client.model.parameters():
            parameter += 0.1 * torch.ones_like(parameter).cumsum(-1)
        features = client.model.features(batch.images)
        head = client.model.heads["head"]
        plain, noisy = (
            head(f)[:, 0].double().numpy() for f in (features, features + batch.extra["noise"])
        )
    counts = client.data.class_counts.numpy()
    held, absent = np.flatnonzero(counts > 0), np.flatnonzero(counts == 0)
    expected = 0.0
    for i, label in enumerate(batch.labels.tolist()):
        expected -= np.log(soft(noisy[i][held])[held.tolist().index(label)])
        p, q = soft(before[i][absent] / 1.5), soft(plain[i][absent] / 1.5)
        expected += 0.7 * (p * np.log(p / q)).sum()
        share = soft(plain[i][held])
        expected += 0.3 * (share * np.log(share)).sum()
    found = strategy.objective(client, batch).item()
    assert found == pytest.approx(expected / len(plain), rel=1e-4)


def test_absent_classes_get_no_gradient_from_the_labels(lab):
    client = client_of(lab)
    batch = given_batches(client, BalanceFL())[0]
    BalanceFL(weight=0.0).objective(client, batch).backward()
    absent = client.data.class_counts == 0
    gradient = client.model.heads["head"].weight.grad
    assert gradient[absent].abs().max() == 0
    assert gradient[~absent].abs().max() > 0
