"""Numbers that stock strategies of Flower tell their clients, mods around a task, and refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from flwr.app import Context, RecordDict
from wire_grid import WireGrid

from fedlt.apps import make_apps
from fedlt.check.tiny_runs import read_rows
from fedlt.errors import FedltError, RunError
from fedlt.runs.directory import RunDirectory

FLOWER = "flwr.serverapp.strategy"
MODS = "flwr.clientapp.mod"


def broadcast(outcome):
    return outcome.checkpoint.tensors["broadcast"]


def check_close(one, other):
    for name, tensor in broadcast(one).items():
        torch.testing.assert_close(tensor, broadcast(other)[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("engine", ["serial", "stacked"])
def test_fedprox_has_its_proximal_term(lab, reference, engine):
    """Against fedlt's own FedProx; without the term it is FedAvg."""
    stock = {"name": f"{FLOWER}:FedProx", "proximal_mu": 3.0}
    everybody = {"clients_per_round": None}  # stock strategies draw their cohorts themselves
    found = lab.run(strategy=stock, engine={"name": engine}, **everybody)
    check_close(found, reference(strategy={"name": "fedprox", "mu": 3.0}, **everybody))
    plain = broadcast(reference(strategy="fedavg", **everybody))
    assert any(not torch.allclose(t, plain[n], atol=1e-4) for n, t in broadcast(found).items())


@pytest.mark.slow
def test_qfedavg_depends_on_q(lab):
    runs = [
        lab.run(strategy={"name": f"{FLOWER}:QFedAvg", "client_learning_rate": 0.1, "q": q})
        for q in (0.0, 0.0, 4.0)
    ]
    assert runs[0].bits == runs[1].bits
    heads = [broadcast(one)["heads.head.weight"] for one in runs]
    assert not torch.allclose(heads[0], heads[2], atol=1e-4)


def test_qfedavg_by_its_formula(lab):
    """q-FedAvg (Li et al., ICLR 2020, https://arxiv.org/abs/1905.10497), algorithm 2, one round.

    With L = 1/lr: w - sum_k F_k^q L (w - w_k) / sum_k (q F_k^(q-1) |L (w - w_k)|^2 + L F_k^q).
    """
    from by_hand import play_round

    from fedlt.engines.serial import SerialEngine
    from fedlt.flower.server_half import make_server_half
    from fedlt.worker.worker import Worker

    federation = lab.federation(
        strategy={"name": f"{FLOWER}:QFedAvg", "client_learning_rate": 0.5, "q": 2.0},
        clients_per_round=None,
    )
    server, worker = make_server_half(federation.view), Worker(federation.shares)
    names = server.model.parameter_names("shared")
    start = {n: server.state.broadcast[n].numpy().astype(np.float64) for n in names}
    deltas, weights = [], []
    for cid in range(5):
        update = worker.train(worker.first_client(server.state, cid, None))
        loss = update.metrics["loss"] / update.metrics["examples"]
        step = {n: 2.0 * (start[n] - update.sums[n].numpy()) for n in names}
        norm = sum(float(np.square(one).sum()) for one in step.values())
        deltas.append({n: loss**2 * one for n, one in step.items()})
        weights.append(2.0 * loss * norm + 2.0 * loss**2)
    with SerialEngine(federation) as engine:
        play_round(server, engine, 1)
    for name in names:
        wanted = start[name] - sum(d[name] for d in deltas) / sum(weights)
        np.testing.assert_allclose(server.state.broadcast[name], wanted, rtol=1e-4, atol=1e-6)


TREES = ("FedXgbBagging", "FedXgbCyclic")


@pytest.mark.parametrize("name", TREES)
def test_strategies_of_trees_are_refused(lab, name):
    config = lab.config(strategy=f"{FLOWER}:{name}")
    with pytest.raises(FedltError, match=f"{name} puts trees together"):
        lab.run(strategy=f"{FLOWER}:{name}")
    assert not RunDirectory.of(config).path.exists()


# ---- wrappers and mods


WRAPPED = """
from flwr.serverapp.strategy import FedAvg
from flwr.serverapp.strategy import {kind}


class Private({kind}):
    def __init__(self, min_train_nodes: int = 2, min_available_nodes: int = 2,
                 min_evaluate_nodes: int = 2, fraction_train: float = 1.0,
                 fraction_evaluate: float = 1.0):
        inner = FedAvg(fraction_train, fraction_evaluate, min_train_nodes, min_evaluate_nodes,
                       min_available_nodes)
        super().__init__(inner, noise_multiplier={noise}, clipping_norm=0.05,
                         num_sampled_clients=min_train_nodes)
"""


def wrapper(tmp_path, kind, noise=0.0):
    path = tmp_path / f"{kind.lower()}{noise:g}.py"
    path.write_text(WRAPPED.format(kind=kind, noise=noise))
    return f"{path}:Private"


GROUP = {"model": {"norm": "group"}}  # no buffers: a mod of Flower's sees what the clients send


def test_noise_of_the_server_is_seeded(lab, tmp_path):
    name = wrapper(tmp_path, "DifferentialPrivacyServerSideFixedClipping", 0.5)
    first, second = lab.run(strategy=name, **GROUP), lab.run(strategy=name, **GROUP)
    assert first.bits == second.bits
    other = lab.run(strategy=name, **GROUP, seed=2)
    assert first.bits != other.bits


def test_clipping_at_clients_needs_its_mod_and_works_with_it(lab, tmp_path, reference):
    """The mean step is then no longer than the bound."""
    name = wrapper(tmp_path, "DifferentialPrivacyClientSideFixedClipping")
    with pytest.raises(
        FedltError, match=r"flower\.mods=\[flwr\.clientapp\.mod:fixedclipping_mod\]"
    ):
        lab.run(strategy=name, **GROUP)
    mods = {"flower": {"mods": [f"{MODS}:fixedclipping_mod"]}}
    found = lab.run(strategy=name, **GROUP, **mods, rounds=1)
    start = lab.federation(**GROUP).view.build_model().state()
    squares = [(t - start[n]).square().sum() for n, t in broadcast(found).items()]
    assert 0.01 < torch.stack(squares).sum().sqrt() < 0.0501


def test_adaptive_clipping_at_clients_is_refused(lab, tmp_path):
    path = tmp_path / "adaptive.py"
    kind = "DifferentialPrivacyClientSideAdaptiveClipping"
    text = WRAPPED.format(kind=kind, noise=0.05).replace("clipping_norm=0.05,", "")
    path.write_text(text)
    with pytest.raises(FedltError, match="needs a bit of each client"):
        lab.run(strategy=f"{path}:Private", **GROUP)


HALVES = """
def halves(message, context, call_next):
    reply = call_next(message, context)
    sent = {n: a.numpy() for n, a in message.content.array_records["arrays"].items()}
    from flwr.app import Array, ArrayRecord
    assert len(message.content.array_records) == len(reply.content.array_records) == 1
    record = reply.content.array_records["arrays"]
    reply.content["arrays"] = ArrayRecord({
        n: Array((sent[n] + (a.numpy() - sent[n]) / 2).astype(a.numpy().dtype))
        for n, a in record.items()})
    return reply


def wrong(message, context, call_next):
    from flwr.app import Error, Message
    return Message(Error(0, "the mod refuses"), reply_to=message)


number = 3
"""


def test_a_mod_acts_on_every_engine_alike(lab, tmp_path, identity):
    """The mod halves each client's step: the first round moves half as far."""
    path = tmp_path / "mods.py"
    path.write_text(HALVES)
    changes = {**GROUP, "rounds": 1, "strategy": "fedavg"}
    mods = {"flower": {"mods": [f"{MODS}:message_size_mod", f"{path}:halves"]}}
    plain, halved = lab.run(**changes), lab.run(**changes, **mods)
    start = lab.federation(**changes).view.build_model().state()
    for name, tensor in broadcast(halved).items():
        middle = (start[name] + broadcast(plain)[name]) / 2
        torch.testing.assert_close(tensor, middle, rtol=1e-5, atol=1e-6)
    check_close(halved, lab.run(**changes, **mods, engine={"name": "stacked"}))
    config = lab.fresh(**changes, **mods)
    server, client = make_apps(config)
    server(WireGrid(client, 5), Context(1, 1, {}, RecordDict(), {}))
    assert read_rows(RunDirectory.of(config)) == halved.rows


@pytest.mark.parametrize(
    ("mod", "words"),
    [
        ("message_size_mod", "is not of the form module:name"),
        ("{path}:number", "is no function"),
        ("{path}:halve", "has no 'halve'"),
    ],
)
def test_wrong_mods_are_named(lab, tmp_path, mod, words):
    path = tmp_path / "mods.py"
    path.write_text(HALVES)
    with pytest.raises(FedltError, match=rf"flower\.mods\.0.*{words}"):
        lab.run(flower={"mods": [mod.format(path=path)]})


def test_a_mod_that_answers_with_an_error_ends_the_run(lab, tmp_path):
    path = tmp_path / "mods.py"
    path.write_text(HALVES)
    with pytest.raises(RunError, match="the mod refuses"):
        lab.run(flower={"mods": [f"{path}:wrong"]})
