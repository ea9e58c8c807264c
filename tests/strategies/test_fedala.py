"""FedALA: the mixture of two models, and the gradient step of its weights written out."""

from __future__ import annotations

import math

import pytest
import torch
from torch.func import functional_call
from torch.nn import functional

from fedlt.flower.server_half import make_server_half
from fedlt.strategy import under
from fedlt.worker.worker import Worker
from strategies.fedala import FedALA, blend

HEAD = ("heads.head.weight", "heads.head.bias")


def test_blend_ends_at_both_models():
    generator = torch.Generator().manual_seed(0)
    received, own = ({"w": torch.randn(50, generator=generator)} for _ in range(2))
    assert torch.equal(blend({"w": torch.ones(50)}, received, own)["w"], received["w"])
    torch.testing.assert_close(blend({"w": torch.zeros(50)}, received, own)["w"], own["w"])
    half = blend({"w": torch.full((50,), 0.25)}, received, own)["w"]
    torch.testing.assert_close(half, 0.25 * received["w"] + 0.75 * own["w"])


@pytest.mark.parametrize("known", [False, True])
def test_the_weights_by_hand(lab, known):
    """W <- clip(W - eta g * (received - own)), g the gradient at the mixture, on 80 % of batches.

    The chain rule: the mixture is own + W * (received - own). At first three passes from ones, and
    one pass later. Only the head is mixed; the rest of the model is the received one in evaluation.
    """
    strategy = {"name": "fedala", "eta": 20.0, "start_epochs": 3}
    federation = lab.federation(strategy=strategy, local={"batch_size": 8, "epochs": 2})
    worker, server = Worker(federation.shares), make_server_half(federation.view)
    state = server.state
    generator = torch.Generator().manual_seed(3)
    own = {
        n: t + 0.3 * torch.randn(t.shape, generator=generator) if t.is_floating_point() else t
        for n, t in state.broadcast.items()
    }
    kept = {f"own.{n}": t for n, t in own.items()}
    weights = {name: torch.ones_like(own[name]) for name in HEAD}
    if known:
        weights = {n: torch.rand(t.shape, generator=generator) for n, t in weights.items()}
        kept |= {f"weight.{n}": t for n, t in weights.items()}
    client = worker.client(1, 2, state.broadcast, fixed=state.fixed, personal=kept)
    update = worker.train(client)
    net = federation.view.build_model().eval()
    batches = list(client.plugin.batches(client, 2))
    batches = batches[: math.ceil(0.8 * len(batches))]
    for batch in batches * (1 if known else 3):
        far = {n: state.broadcast[n] - own[n] for n in HEAD}
        mixed = {n: (own[n] + weights[n] * far[n]).requires_grad_() for n in HEAD}
        logits = functional_call(net, mixed, (batch.images,)).squeeze(1)
        loss = functional.cross_entropy(logits, batch.labels)
        found = torch.autograd.grad(loss, list(mixed.values()))
        weights = {
            n: (weights[n] - 20.0 * g * far[n]).clamp(0, 1)
            for n, g in zip(HEAD, found, strict=True)
        }
    learnt = under("weight.", update.personal)
    assert set(learnt) == set(HEAD)
    for name, value in weights.items():
        torch.testing.assert_close(learnt[name], value, rtol=1e-4, atol=1e-5)
    assert 0 <= learnt[HEAD[0]].min() < learnt[HEAD[0]].max() <= 1


def test_layers_count_from_the_head(lab):
    model = lab.federation().view.build_model()
    assert FedALA().top_layers(model) == list(HEAD)
    assert FedALA(layers=2).top_layers(model)[-2:] == list(HEAD)
    assert len(FedALA(layers=2).top_layers(model)) == 4
    assert set(FedALA(layers=99).top_layers(model)) == set(model.parameter_names())


def test_the_model_that_was_trained_last_is_kept(lab):
    federation = lab.federation(strategy="fedala")
    worker, server = Worker(federation.shares), make_server_half(federation.view)
    state = server.state
    client = worker.client(1, 1, state.broadcast, fixed=state.fixed, personal={})
    update = worker.train(client)
    own = under("own.", update.personal)
    assert all(torch.equal(own[name], value) for name, value in update.sums.items())
    assert not under("weight.", update.personal)  # nothing to mix in the first round
