"""Clients that never took part: tuned for scoring as everybody is, by a second implementation.

After one round with one client of five, four have no state. Their models are made here from the
checkpoint by torch's own SGD on the plugin's batches, and scored by a plain forward pass.
"""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch.nn import functional

import fedlt.models.etf_head
import fedlt.worker.training
from fedlt.evaluation.request import ClientRequest, ScoreRequest
from fedlt.flower.server_half import make_server_half
from fedlt.realigning.changes import TauNorm
from fedlt.realigning.session import Plan, realign
from fedlt.runs.evaluations import load_evaluation
from fedlt.worker.scorer import Host
from fedlt.worker.worker import Worker
from strategies import STRATEGIES

ONE = {"clients_per_round": 1, "rounds": 1}
REFRESH = {"personal": {"refresh": {"scope": "all", "epochs": 1}}}


def last_scores(outcome):
    return load_evaluation(outcome.directory.evaluations / "round_1.npz").personal


def right(model, data):
    """Return the correctly predicted test images by class."""
    mean, std = (torch.tensor(value).view(-1, 1, 1) for value in (data.mean, data.std))
    images = (torch.from_numpy(data.eval_images.copy()) / 255 - mean) / std
    with torch.no_grad():
        predicted = model.eval()(images).squeeze(1).argmax(1).numpy()
    hit = data.eval_labels[predicted == data.eval_labels]
    return np.bincount(hit, minlength=4).tolist()


def tuned_by_hand(federation, state, cid, *, epochs=1):
    """Return a copy of the model after some epochs of SGD on one client's images."""
    client = Worker(federation.shares).client(cid, 2, state, fixed={}, personal={})
    model = copy.deepcopy(client.model)
    model.load_state_dict(state)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
    model.train()
    for epoch in range(epochs):
        for batch in client.plugin.batches(client, epoch):
            optimizer.zero_grad()
            functional.cross_entropy(model(batch.images).squeeze(1), batch.labels).backward()
            optimizer.step()
    return model


@pytest.mark.parametrize(
    "changes", [{"strategy": "fedavg_ft"}, {"strategy": "fedavg", **REFRESH}], ids=str
)
def test_everybody_is_tuned_from_the_new_global_model(lab, reference, changes):
    """Four never sampled and one that was: one epoch each, ceil(n_k / 8) steps."""
    outcome = reference(**changes, **ONE)
    federation, state = lab.federation(**changes, **ONE), outcome.groups["broadcast"]
    row, scores = outcome.rows[-1], last_scores(outcome)
    assert (row["personal/participated"], row["personal/never"]) == (1, 4)
    for cid in range(5):
        model = tuned_by_hand(federation, state, cid)
        assert scores.hits[cid, 0].tolist() == right(model, federation.observer.data), cid
    sizes = federation.observer.data.client_sizes.tolist()
    assert row["personal/steps"] == pytest.approx(np.mean([math.ceil(n / 8) for n in sizes]))
    assert any((scores.hits[cid, 0] != scores.generic_hits[cid]).any() for cid in range(5))


@pytest.mark.parametrize("changes", [{"strategy": "fedper"}, {"batchnorm": "local"}], ids=str)
def test_a_generic_model_of_means_is_where_the_others_start(lab, reference, changes):
    """Two participants: the private part of the generic model is their mean, by n_k / n."""
    changes = {**changes, **REFRESH, "clients_per_round": 2, "rounds": 1}
    outcome = reference(**changes)
    federation, own = lab.federation(**changes), outcome.personal
    sizes, total = (
        federation.observer.data.client_sizes,
        sum(federation.observer.data.client_sizes[c] for c in own),
    )
    state = dict(outcome.groups["broadcast"])
    for name in next(iter(own.values())):
        state[name] = sum(own[cid][name] * (sizes[cid] / total) for cid in own)
    whole = federation.view.build_model().state_dict()
    state |= {n: t for n, t in whole.items() if not t.is_floating_point()}  # no prediction reads it
    scores = last_scores(outcome)
    for cid in set(range(5)) - set(own):
        model = tuned_by_hand(federation, state, cid)
        assert scores.hits[cid, 0].tolist() == right(model, federation.observer.data), cid


@pytest.mark.parametrize("name", ["ditto", "pfedme", "apfl", "fedala", "scaffold", "moon"])
def test_a_model_of_ones_own_starts_at_the_generic_one(lab, reference, name):
    """What the method keeps at a client is not there yet: the refresh is of the global model."""
    changes = {"strategy": name, **REFRESH, **ONE}
    outcome = reference(**changes)
    federation, state = lab.federation(**changes), outcome.groups["broadcast"]
    state = {n: t for n, t in state.items() if n in federation.view.build_model().state_dict()}
    scores = last_scores(outcome)
    for cid in set(range(5)) - set(outcome.personal):
        model = tuned_by_hand(federation, state, cid)
        assert scores.hits[cid, 0].tolist() == right(model, federation.observer.data), cid


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_every_strategy_tunes_everybody(lab, reference, name):
    """One client of five took part; each of the others takes at least ceil(n_k / 8) steps."""
    outcome = reference(strategy=name, **REFRESH, **ONE)
    sizes = lab.federation(**ONE).observer.data.client_sizes.tolist()
    row = outcome.rows[-1]
    assert row["personal/never"] == (0 if name == "centralised" else 4)
    least = np.mean([math.ceil(n / 8) for n in sizes])
    assert row["personal/steps"] >= least
    assert 0 <= row["personal/accuracy"] <= 1


def test_a_fixed_start_makes_taking_part_irrelevant(lab):
    """FedBABU's head is everybody's: who has taken part before is tuned to the same bits."""
    federation = lab.federation(strategy="fedbabu")
    worker, server = Worker(federation.shares), make_server_half(federation.view)
    state = server.state
    client = worker.client(3, 1, state.broadcast, fixed=state.fixed, personal={})
    stored = {name: tensor.clone() for name, tensor in worker.train(client).personal.items()}
    found = []
    for personal in ({}, stored):
        again = worker.client(3, 2, state.broadcast, fixed=state.fixed, personal=personal)
        tuned = federation.view.strategy.adapt(again)
        found.append({name: tensor.clone() for name, tensor in tuned.items()})
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(tensor, found[1][name]) for name, tensor in found[0].items())


def test_fedbabu_with_one_client_of_five_tunes_all(reference):
    outcome = reference(strategy="fedbabu", **ONE)
    scores = last_scores(outcome)
    moved = (scores.hits[:, 0] != scores.generic_hits).any(axis=1)
    assert moved.sum() >= 4


@pytest.fixture
def taken(monkeypatch):
    """The steps that are taken, as calls of what does the arithmetic."""
    calls = []

    def counted(owner, name):
        function = getattr(owner, name)

        def wrapper(*given, **more):
            calls.append(name)
            return function(*given, **more)

        monkeypatch.setattr(owner, name, wrapper)

    counted(fedlt.worker.training.Sgd, "step")
    counted(fedlt.models.etf_head, "descend")
    return calls


@pytest.mark.parametrize(
    "changes",
    [
        {"strategy": "fedavg_ft"},
        {"strategy": {"name": "fedetf", "alternations": 2, "tune_epochs": 3}, **REFRESH},
        {"client": {"name": "infobatch", "until": 1.0}, "rounds": 9, **REFRESH},
        {"strategy": "local_only"},
    ],
    ids=str,
)
def test_steps_for_scoring_are_those_that_were_taken(lab, taken, changes):
    """Images that InfoBatch leaves out make no step; where nobody is tuned there is none."""
    federation = lab.federation(**changes)
    host = Host(federation.shares, federation.observer)
    state = make_server_half(federation.view).state
    whole = {"fedavg_ft": 1, "fedetf": 2 * 2 * 3 + 1, "fedavg": 1, "local_only": 0}
    epochs = whole[federation.view.config.strategy.name]
    left_out = 0
    for cid in range(5):
        request = ScoreRequest(
            round=1, broadcast=state.broadcast, fixed=state.fixed, private_mean={}, start=0, stop=1,
            generic=False, keep_logits=False, clients=(ClientRequest(cid, {}, base=False),),
        )  # fmt: skip
        taken.clear()
        assert host.score(request).steps == {cid: len(taken)}
        left_out += epochs * math.ceil(federation.observer.data.client_sizes[cid] / 8) - len(taken)
    assert (left_out > 0) == ("client" in changes)


def test_stragglers_steps_and_everybodys_tuning_add_up(lab, taken):
    """With FedPer every step of the first round makes a personal part, and so does the refresh."""
    faults = {"straggler": {"deadline": 0.5}}
    outcome = lab.run(
        strategy="fedper", faults=faults, **{**ONE, "clients_per_round": 4}, **REFRESH
    )
    assert outcome.rows[-1]["train/partial"] > 0
    assert outcome.rows[-1]["personal/steps"] == pytest.approx(len(taken) / 5)


def test_a_realigned_run_tunes_them_too(reference):
    """Before the change the numbers are the run's, from the new head everybody is tuned again."""
    outcome = reference(strategy="fedavg_ft", **ONE)
    done = realign(outcome.directory, [Plan(TauNorm(tau=0.0))])[0]
    for scores in (done["before"], done["after"]):
        assert scores == {name: outcome.result["final"][name] for name in scores}
    assert done["before"]["personal/gain"] != 0
