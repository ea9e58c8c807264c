"""AdamW against PyTorch's own, alone and in a stack; and who refuses it."""

from __future__ import annotations

import pytest
import torch
from by_hand import tasks_of

from fedlt.engines.serial import SerialEngine
from fedlt.engines.stacked import StackedEngine
from fedlt.errors import FedltError
from fedlt.flower.records import tensors_of
from fedlt.flower.server_half import make_server_half
from fedlt.optim.adamw import AdamW
from fedlt.optim.sgd import ParameterGroup
from fedlt.worker.worker import Worker
from strategies import FedAvg

SETTINGS = {
    "model": {"name": "mlp", "width": 6, "norm": "group"},
    "local": {"optimizer": "adamw", "lr": 0.01, "weight_decay": 0.1, "epochs": 2},
}


def test_its_steps_are_pytorchs():
    """Two groups, changing rates, and a parameter that has no gradient at every third step."""
    draws = torch.Generator().manual_seed(0)
    start = [torch.randn(size, generator=draws).double() for size in ((7, 5), (33,), ())]
    ours, theirs = ([t.clone().requires_grad_() for t in start] for _ in range(2))
    rates, decays = (0.01, 0.003), (0.1, 0.0)
    mine = AdamW([
        ParameterGroup(ours[:2], lr=rates[0], weight_decay=decays[0]),
        ParameterGroup(ours[2:], lr=rates[1], weight_decay=decays[1]),
    ])  # fmt: skip
    other = torch.optim.AdamW([
        {"params": theirs[:2], "lr": rates[0], "weight_decay": decays[0]},
        {"params": theirs[2:], "lr": rates[1], "weight_decay": decays[1]},
    ], foreach=False)  # fmt: skip
    for step in range(60):
        mine.zero_grad()
        other.zero_grad()
        for position, (one, two) in enumerate(zip(ours, theirs, strict=True)):
            if position != 1 or step % 3:
                one.grad = torch.randn(one.shape, generator=draws).double()
                two.grad = one.grad.clone()
        factor = halved(step, 60)
        for group, rate in zip(other.param_groups, rates, strict=True):
            group["lr"] = rate * factor
        mine.step(factor)
        other.step()
    for one, two in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-14)


def test_the_first_step_by_hand():
    """m / (1 - b1) = g and v / (1 - b2) = g^2: w (1 - lr decay) - lr sign(g), whatever g is."""
    weight = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64, requires_grad=True)
    optimizer = AdamW([ParameterGroup([weight], lr=0.1, weight_decay=0.2)])
    weight.grad = torch.tensor([3.0, -0.04, 50.0], dtype=torch.float64)
    optimizer.step()
    expected = torch.tensor([0.98 - 0.1, -1.96 + 0.1, 0.49 - 0.1], dtype=torch.float64)
    torch.testing.assert_close(weight.detach(), expected, rtol=1e-6, atol=0)


def test_a_client_trains_as_with_pytorchs(lab):
    federation = lab.federation(**SETTINGS)
    state = make_server_half(federation.view).state
    one, other = (
        Worker(federation.shares).client(1, 1, state.broadcast, fixed={}, personal={})
        for _ in range(2)
    )
    one.train(FedAvg().objective, schedule=halved)
    parameters = list(other.model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.1, foreach=False)
    batches = list(other.batches(2))
    other.model.train()
    for step, batch in enumerate(batches):
        optimizer.param_groups[0]["lr"] = 0.01 * halved(step, len(batches))
        optimizer.zero_grad()
        FedAvg().objective(other, batch).backward()
        optimizer.step()
    for name, value in other.model.state().items():
        torch.testing.assert_close(one.model.state()[name], value, rtol=1e-5, atol=1e-6)


def halved(step, steps):
    return 1.0 if step < steps / 2 else 0.5


def test_stacked_clients_have_their_own_clocks(lab):
    """Sizes differ, so at one step of the stack clients are at different steps of their own."""
    federation = lab.federation(**SETTINGS)
    answers = []
    for engine_class in (SerialEngine, StackedEngine):
        server = make_server_half(federation.view)
        with engine_class(federation) as engine:
            replies = engine.send_and_receive(tasks_of(server, engine))
            answers.append([tensors_of(reply.content["arrays"]) for reply in replies])
    for one, other in zip(*answers, strict=True):
        for name, value in one.items():
            torch.testing.assert_close(value, other[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["scaffold", "fednova", "fedmoswa", "apfl"])
def test_methods_that_read_gradients_off_sgds_way_refuse_it(lab, name):
    with pytest.raises(FedltError, match=f"local.optimizer: strategy '{name}' needs sgd"):
        lab.federation(strategy=name, local={"optimizer": "adamw"})
