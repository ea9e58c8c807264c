"""SCAFFOLD: its steps written out, control variates as means of gradients, and as FedAvg."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from written_out import assert_close, drawn, parameters, start, train

from fedlt.optim.sgd import gradient_weight
from fedlt.strategy import ServerState, Total, under
from strategies import SCAFFOLD, FedAvg


@dataclass(frozen=True)
class PlainMean(FedAvg):
    """FedAvg in which every client counts alike."""

    def local_update(self, client):
        return client.update(client.train(self.objective), weight=1.0)


def test_the_first_round_is_fedavgs_with_plain_means(lab):
    """All control variates are zero; momentum 0.5, models with BatchNorm."""
    run, plain = lab.run(strategy="scaffold", rounds=1), f"{__file__}:PlainMean"
    expected = lab.run(strategy=plain, rounds=1).checkpoint.tensors["broadcast"]
    found = run.checkpoint.tensors["broadcast"]
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    weighted = lab.run(rounds=1).checkpoint.tensors["broadcast"]
    assert not all(torch.equal(weighted[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_a_clients_task_by_hand(lab, momentum):
    """Steps along g - c_k + c; then c_k+ is the mean of the plain gradients g_j alone.

    Under momentum r step k moves by eta sum over j <= k of r^(k-j) g_j, so K steps hold g_j
    A_j = (1 - r^(K-j)) / (1 - r) times, and the mean has these weights (j from 0).
    """
    local = {"lr": 0.1, "head_lr": 0.04, "momentum": momentum, "epochs": 2}
    _, other = start(lab, "fedavg", local=local)
    c, own = drawn(other, "", 0), drawn(other, "", 1)
    common = {f"c/{name}": tensor for name, tensor in c.items()}
    personal = {f"c_k/{name}": tensor for name, tensor in own.items()}
    worker, client = start(lab, "scaffold", extra=common, personal=personal, local=local)
    seen = train(other, lambda name, g, w: g - own[name] + c[name])
    update = worker.train(client)
    assert update.weight == 1.0
    assert_close(update.sums, parameters(other))
    counts = [sum(momentum**i for i in range(len(seen) - j)) for j in range(len(seen))]
    for name, mine in own.items():
        mean = sum(a * g[name] for a, g in zip(counts, seen, strict=True)) / sum(counts)
        new, change = update.personal[f"c_k/{name}"], update.sums[f"c/{name}"]
        torch.testing.assert_close(new, mean, rtol=1e-3, atol=2e-5)
        torch.testing.assert_close(change, mean - mine, rtol=1e-3, atol=2e-5)


def test_the_servers_control_variate_is_the_mean_of_the_clients(lab):
    """sum c_k / N = c: under full participation, and with clients that were never asked."""
    for asked in (None, 1):
        run = lab.run(strategy="scaffold", clients_per_round=asked)
        states, broadcast = dict(run.personal), run.checkpoint.tensors["broadcast"]
        assert len(states) == 5 if asked is None else len(states) <= 3
        for name, c in under("c/", broadcast).items():
            mean = sum(state[f"c_k/{name}"] for state in states.values()) / 5
            torch.testing.assert_close(c, mean, rtol=1e-4, atol=1e-6)
            assert c.abs().max() > 0


def test_the_servers_step_by_hand():
    """Two of eight clients: x = 1 + 0.5 (3 - 1) = 2, and c = 1 + (2 + 4) / 8 = 1.75."""
    state = ServerState(1, {"w": torch.tensor([1.0]), "c/w": torch.tensor([1.0])})
    sums = {"w": torch.tensor([2.0 + 4.0]), "c/w": torch.tensor([2.0 + 4.0])}
    after = SCAFFOLD(server_lr=0.5).aggregate(state, Total(sums, 2.0, (0, 3), 8)).broadcast
    assert {name: tensor.item() for name, tensor in after.items()} == {"w": 2.0, "c/w": 1.75}


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("steps", [1, 2, 17])
def test_gradients_in_equal_steps(momentum, steps):
    """FedNova's closed form: [K - r (1 - r^K) / (1 - r)] / (1 - r)."""
    r = momentum
    expected = (steps - r * (1 - r**steps) / (1 - r)) / (1 - r)
    assert gradient_weight([1.0] * steps, r) == pytest.approx(expected, rel=1e-12)


def test_a_client_without_images_changes_nothing(lab):
    worker, client = start(lab, "scaffold")
    client.data = replace(client.data, indices=client.data.indices[:0])
    update = worker.train(client)
    assert update.weight == 0
    assert all(not tensor.any() for tensor in under("c/", update.sums).values())
