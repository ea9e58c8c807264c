"""Strategies that read gradients off their steps, under local.nesterov, local.clip, local.steps."""

from __future__ import annotations

import pytest
import torch
from written_out import assert_close, drawn, parameters, start, train

from fedlt.config import load_config
from fedlt.errors import FedltError
from fedlt.federation import prepare_parties
from fedlt.methods.lookup import resolve_client, resolve_strategy
from strategies.fedswa import falling

NESTEROV = {"momentum": 0.6, "nesterov": True}
KNOBS = {
    "nesterov": {**NESTEROV, "epochs": 2},
    "steps": {"momentum": 0.6, "steps": 5},
    "both": {**NESTEROV, "steps": 5},
}


def times_of(steps, *, momentum=0.6, nesterov=False, factors=None):
    """Return how often gradient j, from 0, is in the whole way, by the definition of the steps.

    After step k the buffer holds gradient j r^(k-j) times. The step is the buffer, or Nesterov's:
    gradient k once, and the buffer r times.
    """
    factors = factors or [1.0] * steps
    held = [[momentum ** (k - j) if j <= k else 0.0 for j in range(steps)] for k in range(steps)]
    if nesterov:
        held = [
            [momentum * held[k][j] + (1.0 if j == k else 0.0) for j in range(steps)]
            for k in range(steps)
        ]
    return [sum(factors[k] * held[k][j] for k in range(steps)) for j in range(steps)]


@pytest.mark.parametrize("knobs", KNOBS)
def test_scaffolds_variate_is_a_mean_of_plain_gradients(lab, knobs):
    """c_k+ = c_k - c + (x - y) / (K eta), K the number of gradients in the way from x to y."""
    local = {"lr": 0.1, "head_lr": 0.04, **KNOBS[knobs]}
    _, other = start(lab, "fedavg", local=local)
    c, own = drawn(other, "", 0), drawn(other, "", 1)
    common = {f"c/{name}": tensor for name, tensor in c.items()}
    personal = {f"c_k/{name}": tensor for name, tensor in own.items()}
    worker, client = start(lab, "scaffold", extra=common, personal=personal, local=local)
    seen = train(other, lambda name, g, w: g - own[name] + c[name])
    assert len(seen) == local.get("steps", len(seen))
    update = worker.train(client)
    assert_close(update.sums, parameters(other))
    times = times_of(len(seen), nesterov="nesterov" in local)
    for name in own:
        mean = sum(a * g[name] for a, g in zip(times, seen, strict=True)) / sum(times)
        torch.testing.assert_close(update.personal[f"c_k/{name}"], mean, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("knobs", [*KNOBS, "clip"])
def test_fednovas_mean_step(lab, knobs):
    """d_k = (x_k - x) / a_k, a_k by the definition of the steps; clipped gradients count as one."""
    local = {"lr": 0.1, **KNOBS.get(knobs, {**NESTEROV, "steps": 5, "clip": 0.2})}
    worker, client = start(lab, "fednova", local=local)
    _, other = start(lab, "fedavg", local=local)
    before = parameters(other)
    seen = train(other, lambda name, g, w: g)
    if knobs == "clip":  # the clip is at work
        assert max(sum(float(t.square().sum()) for t in g.values()) ** 0.5 for g in seen) > 0.2
    update = worker.train(client)
    a = sum(times_of(len(seen), nesterov="nesterov" in local))
    assert float(update.sums["a"]) == pytest.approx(a, rel=1e-6)
    after = parameters(other)
    assert_close(update.sums, {n: (after[n] - before[n]) / a for n in after}, atol=1e-7)


def test_fedmoswas_variate_under_nesterov_and_steps(lab):
    """The rates fall over the five steps of the task: 1, 1 - 0.9/5, ..."""
    local = {"lr": 0.1, **NESTEROV, "steps": 5}
    worker, client = start(lab, "fedmoswa", local=local)
    _, other = start(lab, "fedavg", local=local)
    seen = train(other, lambda name, g, w: g, factor=lambda k, steps: 1 - 0.9 * k / steps)
    update = worker.train(client)
    assert_close(update.sums, parameters(other))
    factors = [falling(k, 5, end=0.1) for k in range(5)]
    times = times_of(5, nesterov=True, factors=factors)
    for name in parameters(other):
        mean = sum(a * g[name] for a, g in zip(times, seen, strict=True)) / sum(times)
        torch.testing.assert_close(update.personal[f"c/{name}"], mean, rtol=1e-3, atol=2e-5)


def test_apfl_steps_both_models_under_the_knobs(lab):
    """With alpha 0, w and v = the mixture's own gradient 0: w is FedAvg's, under every knob."""
    local = {"lr": 0.1, **NESTEROV, "steps": 5, "clip": 0.3}
    worker, client = start(lab, {"name": "apfl", "alpha": 0.0, "adaptive": False}, local=local)
    _, other = start(lab, "fedavg", local=local)
    train(other, lambda name, g, w: g)
    assert_close(worker.train(client).sums, parameters(other))


FILE = "name: one\nrounds: 1\ndata: {dataset: synthetic}\npartition: {num_clients: 2}\n"


@pytest.mark.parametrize("strategy", ["scaffold", "fedmoswa"])
def test_clipped_steps_hide_the_gradients(tmp_path, strategy):
    """A variate would be the mean of g + drift, shortened, minus the whole drift: refused."""
    path = tmp_path / "one.yaml"
    path.write_text(FILE)
    config = load_config(path, [f"strategy={strategy}", "local.clip=1.0"])
    with pytest.raises(FedltError, match=f"local.clip: strategy '{strategy}' reads mean gradients"):
        prepare_parties(config, resolve_strategy(config), resolve_client(config))


def test_a_users_strategy_that_needs_sgd_must_say_what_it_knows(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\n"
        "from fedlt.strategy import Strategy, StrategyTraits\n\n\n"
        "@dataclass(frozen=True)\n"
        "class Mine(Strategy):\n"
        "    traits = StrategyTraits(needs_sgd=True)\n"
    )
    path = tmp_path / "one.yaml"
    path.write_text(FILE + "strategy: mine.py:Mine\n")
    config = load_config(path, ["local.nesterov=true", "local.momentum=0.9"])
    with pytest.raises(FedltError, match=r"local.nesterov: .*cannot off steps with nesterov"):
        prepare_parties(config, resolve_strategy(config), resolve_client(config))
