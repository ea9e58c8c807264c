"""FedDyn: its steps written out, the closed form of its first round, and what its sums keep."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from written_out import assert_close, drawn, parameters, start, train

from fedlt.strategy import ServerState, Total
from strategies import FedDyn, FedProx


@dataclass(frozen=True)
class PlainProx(FedProx):
    """FedProx in which every client counts alike: FedDyn's clients while h is zero."""

    def local_update(self, client):
        return client.update(client.train(self.objective), weight=1.0)


@pytest.mark.parametrize(("cohort", "factor"), [(3, 1.6), (None, 2.0)])
def test_the_first_round_goes_beyond_the_mean(lab, cohort, factor):
    """With h = 0 the clients are FedProx's, mu = alpha, and h = -alpha/N sum of their steps D_k.

    Then w = w0 + mean(D) - h / alpha = w0 + (1 + |S| / N) mean(D); buffers have the plain mean.
    """
    changes = {"clients_per_round": cohort, "rounds": 1}
    prox = lab.run(strategy={"name": f"{__file__}:PlainProx", "mu": 0.05}, **changes)
    run = lab.run(strategy={"name": "feddyn", "alpha": 0.05}, **changes)
    model = lab.federation().view.build_model()
    found = run.checkpoint.tensors["broadcast"]
    for name, mean in prox.checkpoint.tensors["broadcast"].items():
        expected = mean
        if name in model.parameter_names():
            expected = model.state()[name] + factor * (mean - model.state()[name])
        torch.testing.assert_close(found[name], expected, rtol=1e-4, atol=2e-6)


def test_a_clients_task_by_hand(lab):
    """Steps along g - h_k + alpha (w - w0); then h_k - alpha (w_K - w0)."""
    local = {"lr": 0.1, "head_lr": 0.05, "momentum": 0.5, "epochs": 2}
    _, other = start(lab, "fedavg", local=local)
    own, first = drawn(other, "", 1), parameters(other)
    personal = {f"h/{name}": tensor for name, tensor in own.items()}
    strategy = {"name": "feddyn", "alpha": 0.3}
    worker, client = start(lab, strategy, personal=personal, local=local)
    train(other, lambda name, g, w: g - own[name] + 0.3 * (w - first[name]))
    update, end = worker.train(client), parameters(other)
    assert update.weight == 1.0
    assert_close(update.sums, end)
    assert_close(update.personal, {f"h/{n}": h - 0.3 * (end[n] - first[n]) for n, h in own.items()})


def test_the_servers_step_by_hand():
    """alpha 0.5, two of eight clients, from 1 to 3 on average: h = -1 - 0.5 / 8 * 4 = -1.25.

    The next model is 3 + 1.25 / 0.5 = 5.5.
    """
    state = ServerState(3, {"w": torch.tensor([1.0])}, {"w": torch.tensor([-1.0])})
    total = Total({"w": torch.tensor([6.0])}, 2.0, (1, 4), 8)
    after = FedDyn(alpha=0.5).aggregate(state, total)
    assert after.private["w"].item() == -1.25
    assert after.broadcast["w"].item() == 5.5


def test_the_servers_sum_is_the_mean_over_all_clients(lab):
    """h = sum h_k / N, with the clients that were never asked at zero."""
    run = lab.run(strategy="feddyn", clients_per_round=2)
    for name, h in run.checkpoint.tensors["private"].items():
        mean = sum(state[f"h/{name}"] for state in run.personal.values()) / 5
        torch.testing.assert_close(h, mean, rtol=1e-4, atol=1e-7)
        assert h.abs().max() > 0
