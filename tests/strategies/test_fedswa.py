"""FedSWA and FedMoSWA: schedule, server steps and control variates by hand."""

from __future__ import annotations

import pytest
import torch
from written_out import assert_close, drawn, parameters, start, train

from fedlt.optim.sgd import gradient_weight
from fedlt.strategy import ServerState, Total, under
from strategies import FedMoSWA, FedSWA

LOCAL = {"lr": 0.1, "head_lr": 0.04, "momentum": 0.0, "epochs": 2}


def slope(k, steps):
    """Return the paper's factor with rho = 0.3."""
    return (1 - k / steps) + (k / steps) * 0.3


@pytest.mark.parametrize("rho", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 25])
def test_the_sum_of_the_rates_is_the_closed_form(rho, steps):
    """K (1 + rho) / 2 + (1 - rho) / 2, as k runs from 0 to K - 1."""
    schedule = FedSWA(rho=rho).schedule
    found = gradient_weight((schedule(k, steps) for k in range(steps)), 0.0)
    assert found == pytest.approx((steps * (1 + rho) + (1 - rho)) / 2, rel=1e-12)


def test_a_clients_steps_by_hand(lab):
    worker, client = start(lab, {"name": "fedswa", "rho": 0.3}, local=LOCAL)
    _, other = start(lab, "fedavg", local=LOCAL)
    train(other, lambda name, g, w: g, factor=slope)
    assert_close(worker.train(client).sums, parameters(other))


def test_the_server_steps_beyond_the_mean_with_parameters_only(lab):
    """theta + 1.5 (v - theta) is v + 0.5 (v - theta); running statistics stay at their mean."""
    ends = {}
    for alpha in (1.0, 1.5):
        run = lab.run(strategy={"name": "fedswa", "alpha": alpha}, rounds=1)
        ends[alpha] = run.checkpoint.tensors["broadcast"]
    model = lab.federation(strategy="fedswa").view.build_model()
    first, trained = model.state(), set(model.parameter_names())
    for name, mean in ends[1.0].items():
        beyond = mean + 0.5 * (mean - first[name]) if name in trained else mean
        torch.testing.assert_close(ends[1.5][name], beyond, rtol=1e-5, atol=1e-6)


# ---- FedMoSWA


def test_its_first_round_is_fedswas(lab):
    runs = [lab.run(strategy=name, rounds=1) for name in ("fedmoswa", "fedswa")]
    found, expected = (run.checkpoint.tensors["broadcast"] for run in runs)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert any(tensor.abs().max() > 0 for tensor in under("m/", found).values())


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_a_client_with_control_variates_by_hand(lab, momentum):
    """Steps along g - c_i + m at the rates eta_k; c_i+ is then the mean of g_j, weighted.

    Step k moves by eta_k sum over j <= k of r^(k-j) g_j, so g_j has the weight
    A_j = sum over k >= j of eta_k r^(k-j); without momentum r that is eta_j.
    """
    local = {**LOCAL, "momentum": momentum}
    _, other = start(lab, "fedavg", local=local)
    m, own = drawn(other, "", 0), drawn(other, "", 1)
    common = {f"m/{name}": tensor for name, tensor in m.items()}
    personal = {f"c/{name}": tensor for name, tensor in own.items()}
    strategy = {"name": "fedmoswa", "rho": 0.3}
    worker, client = start(lab, strategy, extra=common, personal=personal, local=local)
    seen = train(other, lambda name, g, w: g - own[name] + m[name], factor=slope)
    update = worker.train(client)
    assert_close(update.sums, parameters(other))
    rates = [slope(k, len(seen)) for k in range(len(seen))]
    counts = [sum(rate * momentum**i for i, rate in enumerate(rates[j:])) for j in range(len(seen))]
    for name in own:
        mean = sum(a * g[name] for a, g in zip(counts, seen, strict=True)) / sum(counts)
        for new in (update.personal[f"c/{name}"], update.sums[f"m/{name}"]):
            torch.testing.assert_close(new, mean, rtol=1e-3, atol=2e-5)


def test_the_servers_moving_average_by_hand():
    """m = 0, variates 1 and 2 of clients alike: their mean is 1.5, half of the way is 0.75.

    Two more: from 0.75 half of the way to 1.5 is 1.125. The model goes from 1 to 1 + 2 (3 - 1) = 5.
    """
    strategy = FedMoSWA(alpha=2.0, gamma=0.5)
    state = ServerState(1, {"w": torch.tensor([1.0]), "m/w": torch.tensor([0.0])})
    sums = {"w": torch.tensor([2.0 * 7.0 - 8.0]), "m/w": torch.tensor([1.0 + 2.0])}
    total = Total(sums, 2.0, (0, 1), 5)
    state = strategy.aggregate(state, total)
    assert {n: t.item() for n, t in state.broadcast.items()} == {"w": 5.0, "m/w": 0.75}
    assert strategy.aggregate(state, total).broadcast["m/w"].item() == 1.125
