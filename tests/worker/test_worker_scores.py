"""A worker's scores against predictions made by hand, before and after a personal refresh."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from fedlt.evaluation.request import ClientRequest, ScoreRequest
from fedlt.flower.server_half import make_server_half
from fedlt.worker.scorer import Host
from fedlt.worker.worker import Worker


def trained(lab, **changes):
    """Return host, server and the personal parts after one round with everybody."""
    federation = lab.federation(clients_per_round=None, local={"epochs": 3}, **changes)
    server, observer = make_server_half(federation.view), federation.observer
    host = Host(federation.shares, observer)
    worker = host.worker
    personal = {}
    for cid in range(federation.view.num_clients):
        client = worker.client(
            cid, 1, server.state.broadcast, fixed=server.state.fixed, personal={}
        )
        own = worker.train(client).personal
        personal[cid] = {name: tensor.clone() for name, tensor in own.items()}
    client = worker.client(0, 1, server.state.broadcast, fixed=server.state.fixed, personal={})
    update = worker.train(client)  # a model that has seen something, as the next broadcast
    broadcast = {**server.state.broadcast, **{n: t.clone() for n, t in update.sums.items()}}
    return host, server, broadcast, personal


def ask(server, broadcast, clients, *, start=0, stop=None, generic=True):
    return ScoreRequest(
        round=1,
        broadcast=broadcast,
        fixed=server.state.fixed,
        private_mean={},
        start=start,
        stop=40 if stop is None else stop,
        generic=generic,
        keep_logits=False,
        clients=clients,
    )


def test_images(data):
    mean, std = (torch.tensor(value).view(-1, 1, 1) for value in (data.mean, data.std))
    images = (torch.from_numpy(data.eval_images.copy()) / 255 - mean) / std
    return images, data.eval_labels


test_images.__test__ = False


def hits(logits, labels, classes=4, held=None):
    """Return correctly predicted images per class, perhaps among some classes only."""
    logits = logits.detach().numpy().copy()
    if held is not None:
        logits[:, ~held] = -np.inf
    right = logits.argmax(axis=1) == labels
    return [int(right[labels == c].sum()) for c in range(classes)]


def test_fedavg_scores_by_hand(lab):
    host, server, broadcast, _ = trained(lab)
    data = host.scorer.observer.data
    answer = host.score(ask(server, broadcast, (ClientRequest(3, {}),)))
    model = server.view.build_model()
    model.load_state_dict(broadcast)
    images, labels = test_images(data)
    logits = model.eval()(images).squeeze(1)
    held = data.client_counts[3] > 0
    own, base = answer.clients[3]
    assert np.diag(answer.generic.confusion[0]).tolist() == hits(logits, labels)
    assert own.hits[0].tolist() == base.hits[0].tolist() == hits(logits, labels)
    assert own.hits_held[0].tolist() == hits(logits, labels, held=held)


def test_fedloge_scores_by_hand(lab):
    host, server, broadcast, personal = trained(lab, strategy="fedloge")
    data = host.scorer.observer.data
    clients = tuple(ClientRequest(cid, personal[cid]) for cid in range(5))
    answer = host.score(ask(server, broadcast, clients))
    model = server.view.build_model()
    whole = {**model.state_dict(), **broadcast, **server.state.fixed}
    model.load_state_dict(whole)
    images, labels = test_images(data)
    features = model.eval().features(images).squeeze(1)
    psi, bias = broadcast["heads.auxiliary.weight"], broadcast["heads.auxiliary.bias"]
    generic = functional.linear(features, psi / psi.norm(dim=1, keepdim=True), bias)
    assert np.diag(answer.generic.confusion[0]).tolist() == hits(generic, labels)
    for cid in range(5):
        own, base = answer.clients[cid]
        norms = personal[cid]["heads.local.weight"].norm(dim=1, keepdim=True)
        held = data.client_counts[cid] > 0
        assert own.heads[0] == "realigned_v1"
        logits = functional.linear(features, psi * norms, bias)
        assert own.hits[0].tolist() == hits(logits, labels)
        assert own.hits_held[0].tolist() == hits(logits, labels, held=held)
        assert base.hits[0].tolist() == hits(generic, labels)


def test_pieces_of_the_test_set_add_up(lab):
    host, server, broadcast, personal = trained(lab, strategy="fedloge")
    clients = (ClientRequest(2, personal[2]),)
    whole = host.score(ask(server, broadcast, clients))
    parts = [host.score(ask(server, broadcast, clients, start=a, stop=b)) for a, b in
             ((0, 13), (13, 40))]  # fmt: skip
    total = parts[0].generic + parts[1].generic
    assert np.array_equal(total.confusion, whole.generic.confusion)
    assert np.array_equal(total.nll, whole.generic.nll)
    joined = parts[0].clients[2][0] + parts[1].clients[2][0]
    assert np.array_equal(joined.hits, whole.clients[2][0].hits)


def test_scores_do_not_depend_on_what_the_worker_did_before(lab):
    host, server, broadcast, personal = trained(lab, strategy="fedloge", batchnorm="local")
    clients = (ClientRequest(2, personal[2]), ClientRequest(4, personal[4]))
    first = host.score(ask(server, broadcast, clients))
    client = host.worker.client(1, 5, broadcast, fixed=server.state.fixed, personal=personal[1])
    host.worker.train(client)
    again = host.score(ask(server, broadcast, clients[::-1]))
    fresh = Host(host.worker.shares, host.scorer.observer).score(ask(server, broadcast, clients))
    for other in (again, fresh):
        assert np.array_equal(other.generic.nll, first.generic.nll)
        for cid in (2, 4):
            assert np.array_equal(other.clients[cid][0].hits, first.clients[cid][0].hits)


# ---- personal.refresh


@pytest.mark.parametrize("scope", ["head", "all"])
def test_refresh_trains_a_copy_for_scoring_by_hand(lab, scope):
    """FedAvg, one epoch of SGD on client 3 from the broadcast, keyed by the round after."""
    refresh = {"refresh": {"scope": scope, "epochs": 1}}
    host, server, broadcast, _ = trained(lab, personal=refresh)
    data = host.scorer.observer.data
    before = {name: tensor.clone() for name, tensor in broadcast.items()}
    answer = host.score(ask(server, broadcast, (ClientRequest(3, {}),), generic=False))
    assert all(torch.equal(broadcast[name], tensor) for name, tensor in before.items())

    other = Worker(host.worker.shares)
    client = other.client(3, 2, broadcast, fixed={}, personal={})
    model = client.model
    model.train()
    if scope == "head":
        model.backbone.eval()  # features as the generic model has them
    names = [n for n, _ in model.named_parameters() if scope == "all" or n.startswith("heads.")]
    chosen = [p for n, p in model.named_parameters() if n in names]
    optimizer = torch.optim.SGD(chosen, lr=0.1, momentum=0.5)
    for batch in client.plugin.batches(client, 0):
        optimizer.zero_grad()
        functional.cross_entropy(model(batch.images).squeeze(1), batch.labels).backward()
        optimizer.step()
    images, labels = test_images(data)
    logits = model.eval()(images).squeeze(1)
    assert answer.clients[3][0].hits[0].tolist() == hits(logits, labels)


@pytest.mark.parametrize("strategy", ["fedavg", "fedloge", "flwr.serverapp.strategy:FedAvg"])
def test_refresh_leaves_no_trace_in_the_run(lab, reference, strategy):
    refresh = {"refresh": {"scope": "all", "epochs": 2}}
    outcome = lab.run(strategy=strategy, personal=refresh)
    plain = reference(strategy=strategy)
    tensors = {k: v for k, v in outcome.bits.items() if k != "rows"}
    assert tensors == {k: v for k, v in plain.bits.items() if k != "rows"}
    for row, wanted in zip(outcome.rows, plain.rows, strict=True):
        assert row["generic/accuracy"] == wanted["generic/accuracy"]
        assert row["train/loss"] == wanted["train/loss"]
    last = [rows[-1]["personal/accuracy"] for rows in (outcome.rows, plain.rows)]
    assert last[0] != last[1]


def test_refresh_of_heads_keeps_batchnorm_statistics(lab):
    """A frozen backbone runs in evaluation mode; its statistics stay the broadcast ones."""
    host, server, broadcast, _ = trained(lab)
    client = host.worker.client(3, 2, broadcast, fixed={}, personal={})
    server.view.strategy.refresh(client, scope="head", epochs=1)
    state = client.model.state()
    changed = {name for name in broadcast if not torch.equal(state[name], broadcast[name])}
    assert changed == {"heads.head.weight", "heads.head.bias"}


@pytest.mark.parametrize("source", ["oracle", "secure_sum"])
def test_refresh_knows_the_global_prior(lab, source):
    """The refresh trains on the run's loss, so it needs what the messages of a round carry."""
    outcome = lab.run(
        client="balanced_softmax",
        prior={"use": "global", "source": source},
        personal={"refresh": {"epochs": 1}},
        rounds=1,
    )
    assert outcome.result["status"] == "finished"


def test_clients_of_one_request_do_not_see_each_other(lab):
    """Client 3 comes with a head of its own; client 4, after it, is scored on the broadcast."""
    host, server, broadcast, _ = trained(lab)
    name = "heads.head.weight"
    first = ClientRequest(3, {}, refreshed={name: -broadcast[name]})
    both = host.score(ask(server, broadcast, (first, ClientRequest(4, {})))).clients
    alone = host.score(ask(server, broadcast, (ClientRequest(4, {}),))).clients
    assert np.array_equal(both[4][0].hits, alone[4][0].hits)
    assert not np.array_equal(both[3][0].hits, both[4][0].hits)
