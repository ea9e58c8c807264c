"""Ditto: a personal model held at the broadcast one by hand, and local training without a pull."""

from __future__ import annotations

import torch
from torch.nn import functional

from fedlt.flower.server_half import make_server_half
from fedlt.strategy import under
from fedlt.worker.worker import Worker

ALL = {"clients_per_round": None}


def test_without_a_pull_the_personal_model_is_local_training(reference):
    ditto = reference(strategy={"name": "ditto", "lam": 0.0}, **ALL).personal
    alone = reference(strategy="local_only", **ALL).personal
    for cid, state in alone.items():
        own = under("own.", ditto[cid])
        assert own.keys() == state.keys()
        assert all(torch.equal(own[name], value) for name, value in state.items())


def test_personal_steps_by_hand(lab):
    """v <- v - lr (grad F(v) + lam (v - w)), w as broadcast: not the copy that has been trained.

    The client has a personal model already, moved away from the broadcast one by 0.01.
    """
    lam, lr = 0.7, 0.1
    local = {"lr": lr, "momentum": 0.0, "epochs": 1}
    changes = {"strategy": {"name": "ditto", "lam": lam}, "local": local, "model": {"name": "mlp"}}
    federation = lab.federation(**changes)
    worker, server = Worker(federation.shares), make_server_half(federation.view)
    state = server.state
    moved = {n: t + 0.01 if t.is_floating_point() else t for n, t in state.broadcast.items()}
    own = {f"own.{n}": t for n, t in moved.items()}
    client = worker.client(1, 1, state.broadcast, fixed=state.fixed, personal=own)
    update = worker.train(client)
    model = federation.view.build_model().train()
    model.load_state_dict(moved)
    for batch in client.plugin.batches(client, 0):
        loss = functional.cross_entropy(model(batch.images).squeeze(1), batch.labels)
        found = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():
            for (name, v), gradient in zip(model.named_parameters(), found, strict=True):
                v -= lr * (gradient + lam * (v - state.broadcast[name]))
    for name, value in model.state_dict().items():
        torch.testing.assert_close(update.personal[f"own.{name}"], value)
    assert update.metrics["steps"] == 2 * update.metrics["personal_steps"]
