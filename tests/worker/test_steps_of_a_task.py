"""``local.steps`` and ``local.clip`` in a client's task, against loops written out."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, islice

import pytest
import torch
from written_out import assert_close, gradients, parameters, start

from fedlt.client import ClientPlugin
from fedlt.flower.server_half import make_server_half
from fedlt.optim.sgd import climb
from fedlt.worker.worker import Worker
from strategies import STRATEGIES, FedAvg

LOCAL = {"batch_size": 8, "lr": 0.1, "momentum": 0.0}


@dataclass(frozen=True)
class NoBatch(ClientPlugin):
    """A plugin whose epochs are empty."""

    def batches(self, client, epoch):
        return iter(())


def test_batches_go_on_over_reshuffled_epochs(lab):
    """Seven steps are the first seven batches of the epochs 0, 1, ..., and no epoch comes twice."""
    _, client = start(lab, "fedavg", local={**LOCAL, "steps": 7})
    each = client.planned_steps(1)
    assert 1 < each < 7
    assert client.planned_steps() == 7
    plugin = client.plugin
    epochs = [list(plugin.batches(client, epoch)) for epoch in range(8)]
    wanted = list(islice(chain.from_iterable(epochs), 7))
    found = list(client.batches())
    assert len(found) == 7
    for one, two in zip(found, wanted, strict=True):
        assert torch.equal(one.images, two.images)
    begun = -(-7 // each)
    again = next(client.batches())
    assert torch.equal(again.images, epochs[begun][0].images)


def test_a_straggler_takes_its_share_of_the_steps(lab):
    _, client = start(lab, "fedavg", local={**LOCAL, "steps": 7})
    client.work = (3, 7)
    assert client.train(FedAvg().objective)["steps"] == 3


def test_a_client_without_batches_takes_no_step(lab):
    local = {**LOCAL, "steps": 7}
    _, client = start(lab, "fedavg", client=f"{__file__}:NoBatch", local=local)
    assert client.train(FedAvg().objective)["steps"] == 0


OWN = {"apfl", "balancefl", "centralised", "ditto", "fedrep", "pfedme"}  # loops of their own


@pytest.mark.parametrize(
    "name", [n if n in OWN else pytest.param(n, marks=pytest.mark.slow) for n in STRATEGIES]
)
def test_every_strategy_takes_the_steps(lab, name):
    """pFedMe takes five inner steps a batch; APFL steps two models; FedRep trains in two phases."""
    federation = lab.federation(strategy=name, local={**LOCAL, "steps": 2})
    server, worker = make_server_half(federation.view), Worker(federation.shares)
    client = worker.first_client(server.state, 1, None)
    metrics = worker.train(client).metrics
    phases = {"pfedme": 5 * 2, "apfl": 2 * 2, "ditto": 2 * 2, "centralised": 2 * client.asked[0]}
    if name == "fedrep":
        phases[name] = 2 + client.planned_steps(10)
    assert metrics["steps"] == phases.get(name, 2)


@pytest.mark.parametrize("rho", [0.0, 0.3])
def test_a_clipped_step_by_hand(lab, rho):
    """Under SAM the gradient taken uphill is shortened, and the way uphill is not."""
    local = {**LOCAL, "head_lr": 0.02, "steps": 3, "clip": 0.4, "sam_rho": rho}
    _, client = start(lab, "fedavg", local=local)
    _, other = start(lab, "fedavg", local=local)
    client.train(FedAvg().objective)
    named = dict(other.model.named_parameters())
    shortened = 0
    for batch in other.batches():
        found = gradients(other, batch)
        if rho:
            with climb(list(named.values()), list(found.values()), [], rho):
                found = gradients(other, batch)
        length = torch.cat([g.flatten() for g in found.values()]).norm()
        factor = min(1.0, 0.4 / (float(length) + 1e-6))
        shortened += factor < 1
        with torch.no_grad():
            for name, w in named.items():
                w -= (0.02 if name.startswith("heads.") else 0.1) * factor * found[name]
    assert shortened
    assert_close(parameters(client), parameters(other))


def test_only_what_is_trained_counts_for_the_clip(lab):
    """The norm of the head's own gradient, where the head alone is trained."""
    client = start(lab, "fedavg", local={**LOCAL, "clip": 0.1})[1]
    batch, before = next(client.batches()), parameters(client)
    found = {n: g for n, g in gradients(client, batch).items() if n.startswith("heads.")}
    length = float(torch.cat([g.flatten() for g in found.values()]).norm())
    client.train(FedAvg().objective, only="heads", batches=[batch])
    factor = min(1.0, 0.1 / (length + 1e-6))
    assert factor < 1
    wanted = {n: before[n] - 0.1 * factor * g for n, g in found.items()}
    assert_close(parameters(client), {**before, **wanted})
