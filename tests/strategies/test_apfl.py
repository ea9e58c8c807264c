"""APFL: two models and their mixture against steps written out, and the two ends of alpha."""

from __future__ import annotations

import pytest
import torch
from torch.func import functional_call
from torch.nn import functional

from fedlt.flower.server_half import make_server_half
from fedlt.strategy import under
from fedlt.worker.worker import Worker

ALL = {"clients_per_round": None}


def fixed(alpha):
    return {"name": "apfl", "alpha": alpha, "adaptive": False}


@pytest.mark.parametrize("adaptive", [True, False])
def test_one_round_by_hand(lab, adaptive):
    """w <- w - lr g(w); v <- v - lr alpha g(m), m = alpha v + (1 - alpha) w before the step.

    dm / dv = alpha, hence the factor. At the first batch alpha - lr <v - w, g(m)>, and the rest of
    the round has the new one. The client has a v of its own, off w by 0.05.
    """
    lr, alpha = 0.1, 0.4
    local = {"lr": lr, "momentum": 0.0, "epochs": 2}
    strategy = {"name": "apfl", "alpha": 0.9, "adaptive": adaptive}
    model = {"name": "mlp", "norm": "group", "width": 8}
    federation = lab.federation(strategy=strategy, local=local, model=model)
    worker, server = Worker(federation.shares), make_server_half(federation.view)
    state = server.state
    w = {name: tensor.clone() for name, tensor in state.broadcast.items()}
    v = {name: tensor + 0.05 for name, tensor in w.items()}
    kept = {f"own.{n}": t for n, t in v.items()} | {f"mixed.{n}": t for n, t in w.items()}
    kept["alpha"] = torch.tensor(alpha)
    client = worker.client(1, 1, state.broadcast, fixed=state.fixed, personal=kept)
    update = worker.train(client)
    net = federation.view.build_model()

    def slope(parameters, batch):
        leaves = {n: p.clone().requires_grad_() for n, p in parameters.items()}
        logits = functional_call(net, leaves, (batch.images,)).squeeze(1)
        loss = functional.cross_entropy(logits, batch.labels)
        return dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))

    for epoch in range(2):
        for number, batch in enumerate(client.plugin.batches(client, epoch)):
            mixed = {n: alpha * v[n] + (1 - alpha) * w[n] for n in w}
            at_w, at_mixed = slope(w, batch), slope(mixed, batch)
            inner = sum(((v[n] - w[n]) * at_mixed[n]).sum().item() for n in w)
            w = {n: w[n] - lr * at_w[n] for n in w}
            v = {n: v[n] - lr * alpha * at_mixed[n] for n in v}
            if adaptive and epoch == number == 0:
                alpha = min(max(alpha - lr * inner, 0.0), 1.0)
    assert float(update.personal["alpha"]) == pytest.approx(alpha, abs=1e-6)
    assert (alpha != 0.4) is adaptive
    for name in w:
        torch.testing.assert_close(update.sums[name], w[name])
        torch.testing.assert_close(update.personal[f"own.{name}"], v[name])
        mixed = alpha * v[name] + (1 - alpha) * w[name]
        torch.testing.assert_close(update.personal[f"mixed.{name}"], mixed)


def test_with_alpha_zero_the_mixture_is_the_local_copy_of_the_global_model(lab):
    """To the bit, BatchNorm's statistics too, and in a later round as well."""
    federation = lab.federation(strategy=fixed(0.0))
    worker, server = Worker(federation.shares), make_server_half(federation.view)
    state, personal = server.state, {}
    for round_ in (1, 2):
        client = worker.client(1, round_, state.broadcast, fixed=state.fixed, personal=personal)
        update = worker.train(client)
        personal = {name: tensor.clone() for name, tensor in update.personal.items()}
        mixed = under("mixed.", personal)
        for name, value in update.sums.items():
            assert torch.equal(mixed[name], value)


def test_with_alpha_one_the_mixture_is_local_training(reference):
    """At momentum and all: v never hears of w, and follows the gradient at itself."""
    apfl = reference(strategy=fixed(1.0), **ALL).personal
    for cid, state in reference(strategy="local_only", **ALL).personal.items():
        mixed = under("mixed.", apfl[cid])
        floats = {name: value for name, value in state.items() if value.is_floating_point()}
        assert all(torch.equal(mixed[name], value) for name, value in floats.items())


def test_alpha_stays_in_its_interval(lab):
    """It moves once v and w differ; at a learning rate of 30 its step would leave [0, 1]."""
    outcome = lab.run(strategy="apfl", **ALL)
    alphas = [float(state["alpha"]) for state in outcome.personal.values()]
    assert all(0 <= alpha <= 1 and alpha != 0.5 for alpha in alphas)
    federation = lab.federation(strategy="apfl", local={"lr": 30.0, "momentum": 0.0})
    worker, server = Worker(federation.shares), make_server_half(federation.view)
    state = server.state
    own = {n: t + 0.5 if t.is_floating_point() else t for n, t in state.broadcast.items()}
    kept = {f"{p}.{n}": t for p in ("own", "mixed") for n, t in own.items()}
    kept["alpha"] = torch.tensor(0.5)
    client = worker.client(1, 1, state.broadcast, fixed=state.fixed, personal=kept)
    assert float(worker.train(client).personal["alpha"]) in (0.0, 1.0)
