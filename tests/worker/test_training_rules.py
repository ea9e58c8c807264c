"""What ``Client.train`` can be asked for besides plain epochs, against loops written out here."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from by_hand import tasks_of

from fedlt.engines.serial import SerialEngine
from fedlt.engines.stacked import StackedEngine
from fedlt.flower.records import tensors_of
from fedlt.flower.server_half import make_server_half
from fedlt.optim.sgd import climb
from fedlt.worker.worker import Worker
from strategies import FedAvg

LINEAR = {"model": {"name": "mlp", "width": 4, "norm": "group"}}


def make_client(lab, **changes):
    federation = lab.federation(**changes)
    server = make_server_half(federation.view)
    state, worker = server.state, Worker(federation.shares)
    return worker.client(1, 1, state.broadcast, fixed=state.fixed, personal={})


def by_hand(client, batches, step):
    """Run ``step(parameters, batch, k)`` over batches and return the parameters."""
    parameters = dict(client.model.named_parameters())
    for k, batch in enumerate(batches):
        step(parameters, batch, k)
    return {name: p.detach().clone() for name, p in parameters.items()}


def gradients(client, parameters, batch):
    loss = FedAvg().objective(client, batch)
    return torch.autograd.grad(loss, list(parameters.values()))


@torch.no_grad()
def descend(parameters, found, lr):
    for parameter, gradient in zip(parameters.values(), found, strict=True):
        parameter -= lr * gradient


def test_ascent_takes_the_gradient_uphill_and_applies_it_here(lab):
    """SAM, eq. 2 and 3 of Foret et al. on a model without BatchNorm: w - lr grad L(w + e)."""
    rho, lr = 0.5, 0.1
    settings = {**LINEAR, "local": {"lr": lr, "momentum": 0.0, "epochs": 1}}
    client, other = make_client(lab, **settings), make_client(lab, **settings)

    def step(parameters, batch, k):
        first = gradients(other, parameters, batch)
        norm = torch.cat([g.flatten() for g in first]).norm()
        start = {name: p.detach().clone() for name, p in parameters.items()}
        descend(parameters, first, -rho / norm)
        second = gradients(other, parameters, batch)
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(start[name])
        descend(parameters, second, lr)

    wanted = by_hand(other, other.batches(1), step)
    client.train(FedAvg().objective, ascent=rho)
    for name, parameter in client.model.named_parameters():
        torch.testing.assert_close(parameter.detach(), wanted[name])


def test_a_schedule_scales_every_step(lab):
    """Steps k of K with rate lr (1 - k/K): the first is whole, and K counts all epochs."""
    settings = {**LINEAR, "local": {"lr": 0.1, "momentum": 0.0, "epochs": 2}}
    client, other = make_client(lab, **settings), make_client(lab, **settings)
    batches = list(other.batches(2))

    def step(parameters, batch, k):
        rate = 0.1 * (1 - k / len(batches))
        descend(parameters, gradients(other, parameters, batch), rate)

    wanted = by_hand(other, batches, step)
    client.train(FedAvg().objective, schedule=lambda k, steps: 1 - k / steps)
    for name, parameter in client.model.named_parameters():
        torch.testing.assert_close(parameter.detach(), wanted[name])


def test_given_batches_replace_epochs(lab):
    client, other = make_client(lab), make_client(lab)
    batches = list(client.batches(1))
    metrics = client.train(FedAvg().objective, batches=batches)
    assert metrics["examples"] == client.data.num_examples
    other.train(FedAvg().objective, epochs=1)
    for name, value in client.model.state().items():
        assert torch.equal(value, other.model.state()[name])


def test_climb_leaves_every_bit_in_place():
    generator = torch.Generator().manual_seed(0)
    parameters = [torch.randn(3, 4, generator=generator), torch.randn(3, 2, generator=generator)]
    found = [torch.randn(3, 4, generator=generator), None]
    buffer = torch.ones(3)
    before = [parameter.clone() for parameter in parameters]
    with climb(parameters, found, [buffer], 2.0, rows=True):
        way = (parameters[0] - before[0]).norm(dim=1)  # one model a row: each goes 2 far
        torch.testing.assert_close(way, torch.full((3,), 2.0))
        buffer += 1
    assert all(torch.equal(a, b) for a, b in zip(parameters, before, strict=True))
    assert torch.equal(buffer, torch.ones(3))


@dataclass(frozen=True)
class Ruled(FedAvg):
    """Everything at once."""

    def local_update(self, client):
        return client.update(client.train(self.objective, schedule=slope, ascent=0.1))


def slope(step, steps):
    return 1 - step / steps


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_stacked_clients_follow_the_same_rules(lab, momentum):
    """Clients of other sizes have other numbers of steps, hence other rates at the same step."""
    strategy = {"name": f"{__file__}:Ruled"}
    local = {"lr": 0.05, "momentum": momentum, "weight_decay": 0.01, "epochs": 2}
    federation = lab.federation(strategy=strategy, local=local, model={"name": "mlp", "width": 4})
    answers = []
    for engine_class in (SerialEngine, StackedEngine):
        server = make_server_half(federation.view)
        with engine_class(federation) as engine:
            replies = engine.send_and_receive(tasks_of(server, engine))
            answers.append([tensors_of(reply.content["arrays"]) for reply in replies])
    for one, other in zip(*answers, strict=True):
        for name, value in one.items():
            torch.testing.assert_close(value, other[name], rtol=1e-4, atol=1e-5)


# ---- other models inside an objective


def test_frozen_logits_are_those_of_the_other_model_in_evaluation_mode(lab):
    client = make_client(lab)
    batch = next(client.batches(1))
    model = client.model.eval()
    with torch.no_grad():
        wanted = model(batch.images)
    start = client.snapshot("start.")
    client.train(FedAvg().objective, epochs=1)
    after = {name: value.clone() for name, value in client.model.state().items()}
    client.model.train()
    anchor = {name.removeprefix("start."): value for name, value in start.items()}
    found = client.frozen_logits(anchor, batch.images)
    torch.testing.assert_close(found, wanted)
    assert not found.requires_grad
    assert client.model.backbone.training
    assert all(torch.equal(value, after[name]) for name, value in client.model.state().items())


def test_inner_product_adds_its_direction_to_the_gradient(lab):
    client = make_client(lab)
    parameters = dict(client.model.named_parameters())
    direction = {name: torch.full_like(p, 0.25) for name, p in parameters.items()}
    found = torch.autograd.grad(client.inner_product(direction), list(parameters.values()))
    assert all(torch.equal(g, torch.full_like(g, 0.25)) for g in found)
