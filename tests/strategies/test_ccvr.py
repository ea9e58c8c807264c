"""CCVR: FedAvg before its last round, and a head that fits known Gaussians after it."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from fedlt.flower.server_half import make_server_half
from fedlt.models.calibration import Calibration
from fedlt.models.class_statistics import ClassSums
from fedlt.realigning.changes import Ccvr
from fedlt.strategy import ServerState, Total
from fedlt.worker.worker import Worker
from strategies import CCVR

QUICK = {"name": "ccvr", "epochs": 3}
WEIGHT, BIAS = "heads.head.weight", "heads.head.bias"


def test_all_but_the_last_round_is_fedavg_and_the_last_moves_only_the_head(lab):
    """Three rounds of FedAvg and a fourth of statistics: same backbone, same first three lines.

    BatchNorm statistics are averaged once more, over copies of the same values.
    """
    ours, plain = lab.run(strategy=QUICK, rounds=4), lab.run(rounds=3)
    assert ours.rows[:3] == plain.rows
    found, wanted = (run.groups["broadcast"] for run in (ours, plain))
    for name, tensor in wanted.items():
        if "running" in name:
            torch.testing.assert_close(found[name], tensor, rtol=1e-6, atol=1e-7)
        else:
            assert torch.equal(found[name], tensor) == (name not in (WEIGHT, BIAS)), name


def test_the_loss_of_the_last_round_is_that_of_the_received_model(lab):
    federation = lab.federation(strategy=QUICK)
    worker, server = Worker(federation.shares), make_server_half(federation.view)
    client = worker.client(1, 3, server.state.broadcast, fixed={}, personal={})
    update = worker.train(client)
    data, chosen = federation.observer.data, federation.observer.data.partition.clients[1]
    mean, std = (np.asarray(v, np.float32).reshape(1, -1, 1, 1) for v in (data.mean, data.std))
    images = torch.from_numpy((data.train_images[chosen] / np.float32(255) - mean) / std)
    with torch.no_grad():
        logits = client.model.eval()(images).squeeze(1).log_softmax(1)
    labels = torch.from_numpy(data.train_labels[chosen])
    expected = -float(logits.gather(1, labels[:, None]).sum())
    assert update.metrics["loss"] == pytest.approx(expected, rel=1e-4)
    assert update.metrics["examples"] == len(chosen)
    assert update.metrics["steps"] == 0
    for name in update.sums:
        assert torch.equal(update.sums[name], server.state.broadcast[name])


@pytest.mark.parametrize(("covariance", "numbers"), [("full", 16 * 16), ("diag", 16)])
def test_what_the_last_round_sends(lab, covariance, numbers):
    """C counts, C D sums and C D^2 or C D second moments, besides the model."""
    federation = lab.federation(strategy={**QUICK, "covariance": covariance})
    worker, server = Worker(federation.shares), make_server_half(federation.view)
    state = server.state.broadcast
    last = worker.train(worker.client(1, 3, state, fixed={}, personal={}))
    assert sum(tensor.numel() for tensor in last.plain.values()) == 4 * (1 + 16 + numbers)
    assert not worker.train(worker.client(1, 2, state, fixed={}, personal={})).plain


def retrained(strategy, features, labels, num_classes, rounds=9):
    size = features.shape[1]
    start = {WEIGHT: torch.zeros(num_classes, size), BIAS: torch.zeros(num_classes)}
    parts = [(features[half::2], labels[half::2]) for half in range(2)]
    sent = [ClassSums.of(*part, num_classes, strategy.covariance).tensors("features/")
            for part in parts]  # fmt: skip
    plain = {name: sum(tensors[name] for tensors in sent) for name in sent[0]}
    total = Total(start, 1.0, (0, 1), 2, plain=plain, seed=3)
    return strategy.aggregate(ServerState(rounds, start), total).broadcast


@pytest.mark.parametrize(("allocation", "odds"), [("equal", 1.0), ("proportional", 0.1)])
def test_two_gaussians_give_fishers_direction(allocation, odds):
    """Equal priors, one covariance S: the log odds are linear with weights S^-1 (m_1 - m_0).

    4000 drawn rows of 3 features: the fitted direction is within some degrees of it. At the
    midpoint of the means the log odds are those of the prior: equal numbers balance the classes,
    proportional ones keep 30,000 to 3,000.
    """
    generator = np.random.default_rng(0)
    root = np.array([[1.0, 0.0, 0.0], [0.8, 0.6, 0.0], [0.0, 0.5, 1.0]])
    means = np.array([[0.5, 0.0, 0.0], [-0.5, 0.5, 1.0]])
    sizes = (30_000, 3_000)  # a head class and a tail class
    rows = [generator.standard_normal((n, 3)) @ root.T + m for n, m in zip(sizes, means)]  # noqa: B905
    features = torch.from_numpy(np.concatenate(rows)).float()
    labels = torch.arange(2).repeat_interleave(torch.tensor(sizes))
    broadcast = retrained(
        CCVR(allocation=allocation, per_class=2000, epochs=30, lr=0.05), features, labels, 2
    )
    found = (broadcast[WEIGHT][1] - broadcast[WEIGHT][0]).double().numpy()
    expected = np.linalg.solve(root @ root.T, means[1] - means[0])
    cosine = found @ expected / np.linalg.norm(found) / np.linalg.norm(expected)
    assert cosine > math.cos(math.radians(8))
    assert np.linalg.norm(found) == pytest.approx(np.linalg.norm(expected), rel=0.15)
    middle = found @ means.mean(0) + float(broadcast[BIAS][1] - broadcast[BIAS][0])
    assert middle == pytest.approx(math.log(odds), abs=0.3)


def test_how_many_features_a_class_gets_by_hand():
    """631 images in three classes of four: 30 features, 28.5, 1.4 and .05 of them, at least 1."""
    counts = torch.tensor([600.0, 30.0, 0.0, 1.0])
    assert Calibration(per_class=10).numbers(counts).tolist() == [10, 10, 0, 10]
    shared = Calibration(per_class=10, allocation="proportional").numbers(counts)
    assert shared.tolist() == [29, 1, 0, 1]


def test_the_strategy_and_the_method_after_training_have_the_same_defaults():
    strategy, method = CCVR(), Ccvr()
    for field in dataclasses.fields(Calibration):
        assert getattr(strategy, field.name) == getattr(method, field.name), field.name
    assert strategy.calibration() == method.calibration() == Calibration()


def test_a_class_that_nobody_holds_keeps_its_vector():
    features = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(40) % 2
    broadcast = retrained(CCVR(epochs=2), features, labels, 3)
    assert not broadcast[WEIGHT][2].any()
    assert broadcast[WEIGHT][:2].abs().min() > 0
