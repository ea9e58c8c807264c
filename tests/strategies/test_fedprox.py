"""FedProx against its gradient written out."""

from __future__ import annotations

from written_out import assert_close, parameters, start, train


def test_a_clients_steps_by_hand(lab):
    """The gradient of mu/2 |w - w0|^2 is mu (w - w0): every step goes along g + mu (w - w0)."""
    local = {"lr": 0.1, "head_lr": 0.05, "momentum": 0.5, "epochs": 2}
    worker, client = start(lab, {"name": "fedprox", "mu": 0.7}, local=local)
    _, other = start(lab, "fedavg", local=local)
    first = parameters(other)
    train(other, lambda name, g, w: g + 0.7 * (w - first[name]))
    assert_close(worker.train(client).sums, parameters(other))
