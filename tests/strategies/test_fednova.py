"""FedNova against its formula in float64, also at many steps, and as FedAvg."""

from __future__ import annotations

import pytest
import torch

from fedlt.client import Client
from fedlt.federation.steps import start_of, step_norm
from fedlt.flower.server_half import make_server_half
from fedlt.strategy import Total
from fedlt.worker.worker import Worker


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_a_round_by_its_formula(lab, momentum):
    """x - tau eta sum p_k d_k, d_k = (x - x_k) / (eta a_k), tau = sum p_k a_k: eta cancels.

    The x_k are FedAvg's clients; a_k is tau_k steps, or the closed form under momentum r:
    [tau_k - r (1 - r^tau_k) / (1 - r)] / (1 - r).
    """
    changes = {"local": {"batch_size": 8, "lr": 0.1, "momentum": momentum, "epochs": 2}}
    federation = lab.federation(**changes, clients_per_round=None)
    worker, server = Worker(federation.shares), make_server_half(federation.view)
    x = {name: t.double() for name, t in server.state.broadcast.items()}
    sizes = (
        federation.observer.data.client_counts.sum(axis=1)
        / federation.observer.data.client_counts.sum()
    )
    tau, direction = 0.0, dict.fromkeys(x, 0.0)
    for cid, p in enumerate(sizes):
        client = worker.client(cid, 1, server.state.broadcast, fixed={}, personal={})
        update = worker.train(client)
        steps, r = update.metrics["steps"], momentum
        a = (steps - r * (1 - r**steps) / (1 - r)) / (1 - r)
        tau += p * a
        for name, end in update.sums.items():
            direction[name] = direction[name] + p * (x[name] - end.double()) / a
    run = lab.run(strategy="fednova", **changes, clients_per_round=None, rounds=1)
    found = run.checkpoint.tensors["broadcast"]
    for name in federation.view.build_model().parameter_names():
        expected = x[name] - tau * direction[name]
        torch.testing.assert_close(found[name].double(), expected, rtol=1e-4, atol=2e-6)
    fedavg = lab.run(**changes, clients_per_round=None, rounds=1).checkpoint.tensors["broadcast"]
    apart = (fedavg["heads.head.weight"] - found["heads.head.weight"]).abs().max()
    assert apart > 1e-3  # clients of different sizes: the two methods differ


def test_with_equal_steps_it_is_fedavg_to_rounding(lab):
    """Full batches: three steps each, whatever the sizes; running statistics have FedAvg's mean."""
    local = {"batch_size": 10_000, "lr": 0.1, "momentum": 0.5, "epochs": 3}
    found, expected = (
        lab.run(strategy=name, local=local).checkpoint.tensors["broadcast"]
        for name in ("fednova", "fedavg")
    )
    assert found.keys() == {*expected}
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=5e-6)


@pytest.mark.parametrize("steps", [97, 12_311])
def test_many_steps_lose_no_digits(lab, monkeypatch, steps):
    """The server's step against float64 arithmetic on the same models, sizes and step counts.

    A client's model is its start and a given step of a tenth of the weights; client 0 counts twice
    the others' steps. x + (x_k - x) / a_k, kept in float32, would lose what tau multiplies: the
    relative error was 6e-5 and 8e-3. A step keeps its digits: some roundings of 6e-8, each up to
    the ratio of 10 between weights and steps.
    """
    federation = lab.federation(strategy="fednova", local={"momentum": 0.0})
    worker, server = Worker(federation.shares), make_server_half(federation.view)
    state, strategy = server.state, federation.view.strategy
    names = worker.model.parameter_names("shared")
    sizes = federation.observer.data.client_sizes
    generator = torch.Generator().manual_seed(0)

    def train(client, objective):
        for name, parameter in client.model.named_parameters():
            size = 0.1 * float(state.broadcast[name].abs().mean()) + 1e-3
            parameter.data += size * torch.randn(parameter.shape, generator=generator)
        taken = 2 * steps if client.cid == 0 else steps
        return {"loss": 0.0, "examples": 1.0, "steps": float(taken)}

    monkeypatch.setattr(Client, "train", train)
    sums, tau, direction = {}, 0.0, dict.fromkeys(names, 0.0)
    for cid, size in enumerate(sizes):
        client = worker.client(cid, 1, state.broadcast, fixed={}, personal={})
        update, taken = worker.train(client), (2 * steps if cid == 0 else steps)
        ends = client.model.state()
        tau += size / sizes.sum() * taken
        for name in names:
            d = (ends[name].double() - state.broadcast[name].double()) / taken
            direction[name] = direction[name] + size / sizes.sum() * d
        for name, tensor in update.sums.items():
            sums[name] = sums.get(name, 0) + update.weight * tensor
    given = {name: tensor for name, tensor in sums.items() if name in (*names, "a")}
    total = Total(given, float(sizes.sum()), tuple(range(5)), 5)
    found = strategy.aggregate(state, total).broadcast
    for name in names:
        wanted = tau * direction[name]
        error = found[name].double() - (state.broadcast[name].double() + wanted)
        assert float(error.norm() / wanted.norm()) < 1e-5, name


def test_faults_and_diagnostics_measure_its_steps(lab):
    """Full batches, three steps each: d_k is a third of FedAvg's x_k - x, its spread the same."""
    changes = {"local": {"batch_size": 10_000, "lr": 0.1, "momentum": 0.0, "epochs": 3},
               "rounds": 1, "diagnostics": {"every": 1}}  # fmt: skip
    rows = [lab.run(strategy=name, **changes).rows[-1] for name in ("fednova", "fedavg")]
    nova, avg = ({k: v for k, v in row.items() if "drift" in k} for row in rows)
    assert nova["diagnostics/drift_norm"] == pytest.approx(
        avg["diagnostics/drift_norm"] / 3, rel=1e-3
    )
    for name in ("diagnostics/drift_spread", "diagnostics/drift_cosine"):
        assert nova[name] == pytest.approx(avg[name], rel=1e-3)
    norms = []
    for name in ("fednova", "fedavg"):
        federation = lab.federation(strategy=name, **changes)
        worker, server = Worker(federation.shares), make_server_half(federation.view)
        client = worker.client(1, 1, server.state.broadcast, fixed={}, personal={})
        update, names = worker.train(client), worker.model.parameter_names("shared")
        norms.append(step_norm(update.sums, start_of(update, client.broadcast, names), names))
    assert norms[0] == pytest.approx(norms[1] / 3, rel=1e-4)
