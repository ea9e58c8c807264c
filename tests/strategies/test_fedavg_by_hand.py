"""FedAvg against closed forms: a linear model, full batches, and BatchNorm by its formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Message, RecordDict

from fedlt.flower.replies import pack_reply
from fedlt.flower.server_half import make_server_half
from fedlt.strategy import Update
from fedlt.worker.worker import Worker

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
RATE = 0.3


@pytest.fixture
def linear(lab, tmp_path):
    """Return what runs softmax regression on the pixels: full batches, one epoch, no momentum."""
    path = tmp_path / "flat.py"
    path.write_text(FLAT)

    def changes(**more):
        return {
            "model": {"name": f"{path}:Flat"},
            "local": {"batch_size": 10_000, "lr": RATE, "momentum": 0.0},
            "clients_per_round": None,
            "rounds": 1,
            **more,
        }

    return changes


def pixels(data):
    """Return normalised pixels (N, D) in float64."""
    mean, std = (np.asarray(value).reshape(1, -1, 1, 1) for value in (data.mean, data.std))
    return ((data.train_images / 255 - mean) / std).reshape(len(data.train_images), -1)


def step(weight, bias, inputs, labels):
    """Return one gradient step of softmax regression."""
    logits = inputs @ weight.T + bias
    soft = np.exp(logits - logits.max(axis=1, keepdims=True))
    soft /= soft.sum(axis=1, keepdims=True)
    error = (soft - np.eye(len(bias))[labels]) / len(labels)
    return weight - RATE * error.T @ inputs, bias - RATE * error.sum(axis=0)


def head(tensors):
    return tensors["heads.head.weight"], tensors["heads.head.bias"]


@pytest.mark.parametrize("clients", [1, 2, 5])
@pytest.mark.parametrize("strategy", ["fedavg", "flwr.serverapp.strategy:FedAvg"])
def test_one_full_batch_step_each_is_one_step_on_all_images(lab, linear, clients, strategy):
    """Client k ends at W - lr g_k, g_k the mean over its n_k images of (softmax - onehot) x^T.

    The mean weighted by n_k / n is W - lr / n times the sum over all images: one step of plain
    gradient descent on the union, whatever the partition.
    """
    changes = linear(partition={"num_clients": clients}, strategy=strategy)
    federation = lab.federation(**changes)
    weight, bias = (t.double().numpy() for t in head(federation.view.build_model().state()))
    data = federation.observer.data
    expected = step(weight, bias, pixels(data), data.train_labels)
    found = head(lab.run(**changes).checkpoint.tensors["broadcast"])
    for tensor, value in zip(found, expected, strict=True):
        np.testing.assert_allclose(tensor.numpy(), value, rtol=1e-5, atol=1e-6)
    assert np.abs(weight - expected[0]).max() > 1e-3


def test_two_rounds_are_two_steps(lab, linear):
    changes = linear(rounds=2)
    federation = lab.federation(**changes)
    state = [t.double().numpy() for t in head(federation.view.build_model().state())]
    for _ in range(2):
        state = step(
            *state, pixels(federation.observer.data), federation.observer.data.train_labels
        )
    found = head(lab.run(**changes).checkpoint.tensors["broadcast"])
    np.testing.assert_allclose(found[0].numpy(), state[0], rtol=1e-5, atol=1e-6)


def test_a_part_of_the_clients_is_one_step_on_their_images(lab, linear):
    changes = linear(clients_per_round=2)
    federation = lab.federation(**changes)
    cohort = make_server_half(federation.view).sample(1, list(range(5)))
    chosen = np.concatenate([federation.observer.data.partition.clients[cid] for cid in cohort])
    state = (t.double().numpy() for t in head(federation.view.build_model().state()))
    inputs, labels = (
        pixels(federation.observer.data)[chosen],
        federation.observer.data.train_labels[chosen],
    )
    expected = step(*state, inputs, labels)
    found = head(lab.run(**changes).checkpoint.tensors["broadcast"])
    np.testing.assert_allclose(found[0].numpy(), expected[0], rtol=1e-5, atol=1e-6)


def test_head_learning_rate_is_its_own(lab, linear):
    """The linear model is a head only, so head_lr = RATE gives the same bits as lr = RATE."""
    same = linear(local={"batch_size": 10_000, "lr": 9.0, "head_lr": RATE, "momentum": 0.0})
    assert lab.run(**same).bits == lab.run(**linear()).bits


def test_weight_decay_by_hand(lab, linear):
    """SGD with decay d: W - lr (g + d W), one client, one full batch; the bias decays as well."""
    local = {"batch_size": 10_000, "lr": RATE, "momentum": 0.0, "weight_decay": 0.2}
    changes = linear(local=local)
    federation = lab.federation(**changes)
    weight, bias = (t.double().numpy() for t in head(federation.view.build_model().state()))
    plain = step(
        weight, bias, pixels(federation.observer.data), federation.observer.data.train_labels
    )
    found = head(lab.run(**changes).checkpoint.tensors["broadcast"])
    for tensor, value, start in zip(found, plain, (weight, bias), strict=True):
        expected = value - RATE * 0.2 * start
        np.testing.assert_allclose(tensor.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_one_client_gives_its_own_result(lab):
    """Up to the rounding of (n x) / n."""
    changes = {"partition": {"num_clients": 1}, "clients_per_round": None, "rounds": 1}
    federation = lab.federation(**changes)
    worker, server = Worker(federation.shares), make_server_half(federation.view)
    client = worker.client(0, 1, server.state.broadcast, fixed=server.state.fixed, personal={})
    update = worker.train(client)
    found = lab.run(**changes).checkpoint.tensors["broadcast"]
    for name, tensor in update.sums.items():
        torch.testing.assert_close(found[name], tensor, rtol=3e-7, atol=0)


def test_integer_buffers_stay_at_their_first_value(reference):
    after = reference(strategy="fedavg").checkpoint.tensors["broadcast"]
    counters = [name for name in after if name.endswith("num_batches_tracked")]
    assert len(counters) == 3
    for name in counters:
        assert after[name].dtype == torch.int64
        assert after[name].item() == 0


@pytest.mark.usefixtures("identity")
@pytest.mark.parametrize("strategy", ["fedavg", "fedloge", "flwr.serverapp.strategy:FedAdam"])
@pytest.mark.parametrize(("policy", "variance"), [("average", 3.5), ("pooled", 4.25)])
def test_batchnorm_statistics_by_hand(lab, strategy, policy, variance):
    """Means 1 and 3, variances 2 and 4, weights 1 and 3: the mean is 2.5.

    Averaged variance: (2 + 3 * 4) / 4 = 3.5. Pooled: second moments 2 + 1 and 4 + 9 have the mean
    (3 + 3 * 13) / 4 = 10.5, and 10.5 - 2.5^2 = 4.25; clients send second moments then.
    """
    federation = lab.federation(strategy=strategy, batchnorm=policy, clients_per_round=2)
    server = make_server_half(federation.view)
    grid = type("Nodes", (), {"get_node_ids": lambda self: range(5)})()
    plan = server.plan(1, server.cohort(1, grid))
    answers = []
    for cid, (mean, square, weight) in enumerate([(1.0, 2.0, 1.0), (3.0, 4.0, 3.0)]):
        second = square + mean**2 if policy == "pooled" else square
        values = {"running_mean": mean, "running_var": second}
        tensors = {
            name: torch.full_like(tensor, values.get(name.rpartition(".")[2], 0.5))
            for name, tensor in server.state.broadcast.items()
            if tensor.is_floating_point()
        }
        update = Update(tensors, weight, {"loss": 0.0, "examples": 1.0, "steps": 1.0}, {})
        message = Message(RecordDict({"config": ConfigRecord({})}), cid, "train")
        answers.append(pack_reply(update, cid, reply_to=message))
    server.adopt(server.aggregate(1, plan, answers))
    after = server.state.broadcast
    assert {float(v) for n, t in after.items() if n.endswith("running_mean") for v in t} == {2.5}
    assert {float(v) for n, t in after.items() if n.endswith("running_var") for v in t} == {
        variance
    }


def test_pooled_clients_send_second_moments(lab):
    """The same task under both policies: only variances differ, by the square of the mean."""
    sums = {}
    for policy in ("average", "pooled"):
        federation = lab.federation(batchnorm=policy)
        worker, server = Worker(federation.shares), make_server_half(federation.view)
        client = worker.client(2, 1, server.state.broadcast, fixed=server.state.fixed, personal={})
        sums[policy] = {n: t.clone() for n, t in worker.train(client).sums.items()}
    for name, tensor in sums["average"].items():
        if name.endswith("running_var"):
            mean = sums["average"][name.replace("running_var", "running_mean")]
            tensor = tensor + mean * mean
        torch.testing.assert_close(sums["pooled"][name], tensor, rtol=1e-6, atol=0)


def test_local_batchnorm_never_leaves_its_client(lab):
    """FedBN: weights, biases and statistics of every norm are personal; none is broadcast."""
    outcome = lab.run(batchnorm="local", rounds=2, clients_per_round=None)
    tensors = outcome.checkpoint.tensors
    norms = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    expected = {f"backbone.layers.{i}.{name}" for i in (2, 6, 9) for name in norms}
    assert set(outcome.personal[0]) == expected
    assert not expected & set(tensors["broadcast"])
    first, second = (outcome.personal[c]["backbone.layers.2.running_mean"] for c in (0, 1))
    assert not torch.equal(first, second)
