"""Rounds with central and local privacy: noise, divisors, cohorts, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

pytest.importorskip("dp_accounting")

from fedlt.engines.serial import SerialEngine
from fedlt.errors import FedltError
from fedlt.federation.cohorts import drawn_one_by_one
from fedlt.flower.records import tensors_of
from fedlt.flower.server_half import make_server_half
from fedlt.privacy.noise import gaussian
from fedlt.privacy.release import release

MLP = {"name": "mlp", "width": 8, "norm": "none"}
PRIVATE = {"norm": 0.5, "noise_multiplier": 1.0, "delta": 1e-2}


def private(**changes):
    return {"model": MLP, "privacy": PRIVATE | changes}


def test_the_noise_of_a_sum_has_the_deviation_that_epsilon_counts(lab):
    """No client moves: what is left of 10,000 coordinates is noise of variance z^2 C^2."""
    plan = make_server_half(lab.federation(**private(noise_multiplier=2.0)).view).privacy
    broadcast = {"w": torch.zeros(100, 100)}
    made = release(plan, broadcast, {}, [], names=["w"], norm=0.5, answered=3, round_=4, seed=7)
    assert made.divisor == plan.cohort == 3
    assert float(made.sums["w"].var()) == pytest.approx((2.0 * 0.5) ** 2, rel=0.05)
    again = release(plan, broadcast, {}, [], names=["w"], norm=0.5, answered=0, round_=4, seed=7)
    assert torch.equal(made.sums["w"], again.sums["w"])  # of the round and the seed alone
    other = release(plan, broadcast, {}, [], names=["w"], norm=0.5, answered=3, round_=5, seed=7)
    assert not torch.equal(made.sums["w"], other.sums["w"])


def test_an_empty_cohort_moves_the_model_by_noise(lab):
    parties = lab.federation(**private())
    server = make_server_half(parties.view)
    before = {n: t.clone() for n, t in server.state.broadcast.items()}
    plan = server.plan(1, [])
    outcome = server.aggregate(1, plan, [])
    server.adopt(outcome)
    moved = torch.cat([(server.state.broadcast[n] - before[n]).flatten() for n in before])
    expected = math.sqrt(moved.numel()) * 1.0 * 0.5 / 3
    assert float(moved.norm()) == pytest.approx(expected, rel=0.05)
    assert any("noise alone" in line for line in outcome.notes())


@pytest.mark.parametrize("strategy", ["fedavg", "fedrod", "flwr.serverapp.strategy:FedAvg"])
def test_without_noise_and_bound_the_round_is_a_plain_mean(lab, strategy):
    """Against NumPy: the mean of the clients' models with equal weights, whatever their sizes."""
    changes = {"strategy": strategy, "clients_per_round": None, "rounds": 1, "model": MLP}
    privacy = {"norm": 1e9, "noise_multiplier": 0.0}
    parties = lab.federation(**changes, privacy=privacy)
    sizes = parties.observer.data.client_sizes
    assert len(set(sizes.tolist())) > 1
    plain = lab.federation(**changes)
    server, other = make_server_half(parties.view), make_server_half(plain.view)
    start = {n: t.clone() for n, t in server.state.broadcast.items()}
    with SerialEngine(plain) as engine:
        replies = engine.train(other.tasks(1, other.plan(1, range(5))), reduce=False)
        models = [
            {n: t.clone() for n, t in tensors_of(reply.content["arrays"]).items()}
            for reply in replies
        ]
    names = server.model.parameter_names("shared")
    wanted = {n: np.mean([m[n].numpy() for m in models], axis=0) for n in names}
    with SerialEngine(parties) as engine:
        plan = server.plan(1, range(5))
        outcome = server.aggregate(1, plan, engine.train(server.tasks(1, plan), reduce=True))
    for name in names:
        found = outcome.state.broadcast[name].numpy()
        np.testing.assert_allclose(found, wanted[name], atol=1e-6)
        assert not np.allclose(found, start[name].numpy(), atol=1e-6)


def test_updates_are_clipped_to_the_norm(lab):
    """Ten times the learning rate and a tiny norm: the mean step is no longer than the norm."""
    parties = lab.federation(
        **private(norm=0.01, noise_multiplier=0.0), clients_per_round=None, local={"lr": 1.0}
    )
    server = make_server_half(parties.view)
    before = {n: t.clone() for n, t in server.state.broadcast.items()}
    with SerialEngine(parties) as engine:
        plan = server.plan(1, range(5))
        replies = engine.train(server.tasks(1, plan), reduce=True)
    outcome = server.aggregate(1, plan, replies)
    steps = [(outcome.state.broadcast[n] - before[n]).flatten() for n in before]
    assert float(torch.cat(steps).norm()) <= 0.01 * (1 + 1e-5)
    assert min(outcome.lists["norm"]) > 0.01
    assert outcome.release.norm == 0.01


def test_poisson_cohorts():
    """A binomial number of clients, 30 of 100 on average over 1,000 rounds, each as likely."""
    drawn = [drawn_one_by_one(3, r, range(100), 0.3) for r in range(1000)]
    sizes = np.array([len(one) for one in drawn])
    error = math.sqrt(100 * 0.3 * 0.7 / 1000)
    assert abs(sizes.mean() - 30) < 3 * error
    assert sizes.std() == pytest.approx(math.sqrt(21), rel=0.1)
    counts = np.bincount(np.concatenate(drawn), minlength=100)
    assert counts.min() > 300 - 5 * math.sqrt(210)
    assert drawn_one_by_one(3, 1, range(100), 0.0) == []


def test_the_cohorts_of_a_run_are_poisson_with_the_rate_of_the_file(lab):
    server = make_server_half(lab.federation(**private(), clients_per_round=2).view)
    sizes = [len(server.sample(r, range(5))) for r in range(1, 400)]
    assert set(sizes) >= {0, 1, 2, 3, 4}
    assert np.mean(sizes) == pytest.approx(2.0, abs=0.2)
    fixed = make_server_half(lab.federation(**private(sampling="fixed"), clients_per_round=2).view)
    assert {len(fixed.sample(r, range(5))) for r in range(1, 50)} == {2}


@pytest.mark.parametrize("clipping", ["quantile", "tradeoff"])
def test_a_run_resumes_with_its_norm_and_its_noise(lab, clipping):
    own = {"clipping": clipping, "noise_multiplier": 0.1, "delta": 1e-2}
    own |= {"norm": 0.3} if clipping == "tradeoff" else {}
    changes = {"model": MLP, "rounds": 4, "privacy": own, "checkpoint": {"every": 1}}
    whole = lab.run(**changes)
    norms = [row["privacy/norm"] for row in whole.rows]
    assert len(set(norms)) == len(norms)
    config = lab.stopped(2, **changes)
    assert lab.resume(config).bits == whole.bits


def test_local_noise_is_each_clients_own(lab):
    """With two clients that do not move, the mean of their noise has variance z^2 C^2 / 2."""
    like = {"w": torch.zeros(100, 100)}
    one, other = (gaussian(like, ["w"], 2.0, 1, cid, seed=3)["w"] for cid in (0, 1))
    assert not torch.equal(one, other)
    assert float(((one + other) / 2).var()) == pytest.approx(2.0, rel=0.05)
    found = lab.run(**private(mechanism="local"), rounds=2)
    row = found.rows[-1]
    assert row["privacy/clipped"] is None  # nobody tells
    assert "train/loss" not in row
    assert found.result["privacy"]["unit"].endswith("against the server too")


def test_personal_heads_carry_no_noise(lab):
    """FedROD's phi is the same with and without noise after one round from the same broadcast."""
    changes = {"strategy": "fedrod", "rounds": 1, "model": MLP, "clients_per_round": None}
    runs = [lab.run(**changes, privacy=PRIVATE | {"noise_multiplier": z}) for z in (0.0, 1.0)]
    states = [{cid: dict(state) for cid, state in one.personal.items()} for one in runs]
    assert set(states[0]) == set(range(5))
    for cid, state in states[0].items():
        assert state
        assert all(torch.equal(t, states[1][cid][name]) for name, t in state.items())
    broadcast = [one.groups["broadcast"] for one in runs]
    assert not torch.equal(*(b["heads.head.weight"] for b in broadcast))


def test_the_run_ends_before_it_spends_too_much(lab):
    from fedlt.privacy.accounting import Release, epsilon, tight_epsilon

    spent = [epsilon(Release(1.0, 3, 5, "poisson"), r, 1e-2) for r in range(1, 6)]
    tight = [tight_epsilon(Release(1.0, 3, 5, "poisson"), r, 1e-2) for r in range(1, 4)]
    limit = (spent[2] + spent[3]) / 2
    found = lab.run(**private(stop_at=limit), rounds=5)
    assert found.result["rounds"] == 3
    assert found.result["privacy"]["epsilon"] == pytest.approx(spent[2])
    assert [row["privacy/epsilon"] for row in found.rows] == pytest.approx(spent[:3])
    assert [row["privacy/epsilon_pld"] for row in found.rows] == pytest.approx(tight)
    with pytest.raises(FedltError, match="the first round alone spends"):
        lab.federation(**private(stop_at=spent[0] / 2), rounds=5).view.privacy  # noqa: B018


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"strategy": "scaffold"}, "strategy 'scaffold': needs control variates"),
        ({"strategy": "fednova"}, "strategy 'fednova': needs numbers of local steps"),
        ({"strategy": "creff"}, "strategy 'creff': needs class gradients"),
        ({"strategy": "centralised"}, "trains on the images of all clients"),
        ({"strategy": "flwr.serverapp.strategy:Krum"}, "needs the updates of single clients"),
        ({"prior": {"use": "global", "source": "secure_sum"}}, "prior.source: secure_sum"),
        ({"sampling": "by_size"}, "sampling: by_size"),
        ({"faults": {"detect": {"max_ratio": 3.0}}}, "faults.detect"),
        ({"privacy": PRIVATE | {"delta": 0.3}}, "privacy.delta: 0.3 is not below 1 / 5"),
        ({"model": {"name": "cnn", "norm": "batch"}}, "BatchNorm .* take model.norm=group"),
        (
            {"privacy": {"clipping": "quantile", "noise_multiplier": 1.0, "delta": 1e-2}},
            "privacy.quantile.bit_noise: the noise multiplier 1 needs counts .* above 0.5",
        ),
        ({"privacy": PRIVATE | {"mechanism": "sample"}, "strategy": "fedrep"}, "is more than"),
        ({"privacy": PRIVATE | {"mechanism": "sample"}, "strategy": "fedsam"}, "is more than"),
        ({"privacy": PRIVATE | {"mechanism": "sample"}, "client": "mixup"}, "no plain mean"),
    ],
)
def test_what_cannot_be_private_is_refused_by_name(lab, changes, words):
    with pytest.raises(FedltError, match=words):
        make_server_half(lab.federation(**({"model": MLP, "privacy": PRIVATE} | changes)).view)


@pytest.mark.parametrize(
    ("own", "words"),
    [
        (
            {"mechanism": "centre"},
            "expected 'central', 'local' or 'sample'",
        ),
        ({"noise_multiplier": 1.0}, "privacy.norm: is missing"),
        ({"norm": 1.0}, "give noise_multiplier or target_epsilon"),
        ({"norm": 1.0, "noise_multiplier": 1.0, "target_epsilon": 2.0}, "one of them"),
        ({"clipping": "quantile", "norm": 1.0, "noise_multiplier": 1.0}, "quantile finds it"),
        ({"norm": 1.0, "noise_multiplier": 0.0, "stop_at": 1.0}, "infinite epsilon"),
        ({"norm": 1.0, "noise_multiplier": 1.0, "kappa": 2.0}, "kappa: is for clipping: tradeoff"),
        (
            {"mechanism": "local", "clipping": "quantile", "noise_multiplier": 1.0},
            "counts over a cohort",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused_in_a_line(tmp_path, own, words):
    import yaml

    from fedlt.config import load_config

    path = tmp_path / "a.yaml"
    path.write_text(yaml.safe_dump({"name": "a", "rounds": 1, "privacy": own}))
    with pytest.raises(FedltError, match=words) as refused:
        load_config(path)
    assert "\n" not in str(refused.value)


def test_an_update_with_more_than_the_model_is_refused(lab):
    """A user's strategy that inherits FedAvg's word and sends more than it says."""
    from dataclasses import dataclass, replace

    from strategies.fedavg import FedAvg

    @dataclass(frozen=True)
    class Telling(FedAvg):
        def local_update(self, client):
            update = super().local_update(client)
            counts = client.data.class_counts.float()
            return replace(update, plain={"counts": counts})

    parties = lab.federation(**private())
    parties = parties.changed(strategy=Telling())
    server = make_server_half(parties.view)
    with SerialEngine(parties) as engine, pytest.raises(ValueError, match="holds 'counts' beside"):
        engine.train(server.tasks(1, server.plan(1, [0])), reduce=True)


def test_the_key_is_new_and_counts_only_where_it_is_set(lab):
    from fedlt.config import settings_of

    assert not any(key.startswith("privacy") for key in settings_of(lab.config()))
    assert settings_of(lab.config(**private()))["privacy.noise_multiplier"] == "1.0"
