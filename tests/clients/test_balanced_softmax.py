"""Balanced softmax on a client: which prior its loss adds, and what the server tells it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from by_hand import play_round, tasks_of
from torch.nn import functional

from clients import BalancedSoftmax, CrossEntropy
from fedlt.client import Batch
from fedlt.engines.serial import SerialEngine
from fedlt.errors import FedltError
from fedlt.flower.server_half import make_server_half
from fedlt.simulate import run
from fedlt.worker.worker import Worker

OFF = -1e4


def client_of(lab, cid=1, *, counts=None, **changes):
    federation = lab.federation(client="balanced_softmax", **changes)
    worker, server = Worker(federation.shares), make_server_half(federation.view)
    given = server.prior_counts([0, 1, 2]) if counts is None else counts
    return federation, worker.client(
        cid,
        1,
        server.state.broadcast,
        fixed=server.state.fixed,
        personal={},
        global_counts=given,
    )


def shards(**more):
    """Clients of about two classes each, so that some are absent."""
    return {"partition": {"scheme": "shards", "shards_per_client": 2}, **more}


def logs(values):
    return [float(np.log(value)) if value > 0 else OFF for value in values]


def test_local_masked_is_the_log_of_own_counts(lab):
    federation, client = client_of(lab, **shards())
    counts = federation.observer.data.client_counts[1]
    assert 0 in counts
    assert client.tensors["log_prior"].tolist() == pytest.approx(logs(counts))
    assert client.tensors["class_counts"].tolist() == counts.tolist()


def test_oracle_is_the_log_of_everybodys_counts(lab):
    prior = {"use": "global", "source": "oracle"}
    federation, client = client_of(lab, **shards(prior=prior))
    total = np.bincount(federation.observer.data.train_labels, minlength=4)
    assert client.tensors["log_prior"].tolist() == pytest.approx(logs(total))


def test_mix_by_hand(lab):
    prior = {"use": "mix", "source": "oracle", "gamma": 0.25}
    federation, client = client_of(lab, **shards(prior=prior))
    own = federation.observer.data.client_counts[1]
    total = np.bincount(federation.observer.data.train_labels, minlength=4)
    mixed = 0.25 * own / own.sum() + 0.75 * total / total.sum()
    assert client.tensors["log_prior"].tolist() == pytest.approx(logs(mixed), rel=1e-5)


def test_the_loss_by_hand(lab):
    """-log of n_y e^{z_y} / sum_c n_c e^{z_c}, over the classes that the client holds."""
    federation, client = client_of(lab, **shards())
    counts = federation.observer.data.client_counts[1].astype(float)
    held = np.flatnonzero(counts)
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(6, 4))
    labels = generator.choice(held, size=6)
    weights = counts * np.exp(logits)
    expected = -np.log(weights[np.arange(6), labels] / weights.sum(axis=1)).mean()
    batch = Batch(torch.zeros(6, 1, 8, 8), torch.tensor(labels))
    given = torch.tensor(logits, dtype=torch.float32)[:, None]
    assert float(BalancedSoftmax().loss(given, batch, client)) == pytest.approx(expected, rel=1e-5)


def test_absent_classes_get_no_gradient(lab):
    federation, client = client_of(lab, **shards())
    absent = federation.observer.data.client_counts[1] == 0
    batch = next(iter(client.plugin.batches(client, 0)))
    client.plugin.loss(client.model(batch.images), batch, client).backward()
    gradient = client.model.heads["head"].weight.grad
    assert gradient[absent].abs().max() == 0
    assert gradient[~absent].abs().max() > 0


def test_equal_counts_give_cross_entropy(lab):
    _, client = client_of(lab, counts=np.array([7, 7, 7, 7]), prior={
        "use": "global", "source": "oracle",
    })  # fmt: skip
    batch = next(iter(client.plugin.batches(client, 0)))
    logits = client.model(batch.images)
    balanced = BalancedSoftmax().loss(logits, batch, client)
    plain = CrossEntropy().loss(logits, batch, client)
    torch.testing.assert_close(balanced, plain)
    by_hand = functional.cross_entropy(logits.squeeze(1), batch.labels)
    torch.testing.assert_close(plain, by_hand)


def test_predictions_use_plain_logits():
    logits = torch.tensor([[[1.0, 3.0], [3.0, 2.0]]])  # one image, two streams
    assert BalancedSoftmax().predict(logits).tolist() == [[2.0, 2.5]]


def sent_counts(federation, rounds):
    """Run rounds by hand and return (cohort, counts in the messages) of each."""
    server, seen = make_server_half(federation.view), []
    with SerialEngine(federation) as engine:
        for round_ in range(1, rounds + 1):
            sent = tasks_of(server, engine, round_)
            counts = {str(m.content["config"].get("global-counts")) for m in sent}
            assert len(counts) == 1
            first = sent[0].content["config"].get("global-counts")
            cohort = [message.metadata.dst_node_id for message in sent]
            seen.append((cohort, first))
            play_round(server, engine, round_)
    return seen


def test_secure_sum_counts_every_client_heard_so_far_once(lab):
    federation = lab.federation(
        client="balanced_softmax",
        clients_per_round=2,
        prior={"use": "global", "source": "secure_sum"},
    )
    data, heard = federation.observer.data, set()
    labels = [data.train_labels[part] for part in data.partition.clients]
    totals = []
    for cohort, counts in sent_counts(federation, 6):
        heard |= set(cohort)
        joined = np.concatenate([labels[cid] for cid in heard])
        assert counts == np.bincount(joined, minlength=4).tolist()
        totals.append(sum(counts))
    assert totals == sorted(totals)
    assert totals[0] < totals[-1]
    assert len(heard) == 5
    assert totals[-1] == len(data.train_labels)


def test_oracle_is_sent_whole_and_own_sends_nothing(lab):
    for source, use in (("oracle", "global"), ("own", "local_masked")):
        federation = lab.federation(client="balanced_softmax", prior={"use": use, "source": source})
        whole = federation.observer.data.class_counts.tolist()
        for _, counts in sent_counts(federation, 2):
            assert counts == (whole if source == "oracle" else None)


def test_secure_sum_of_one_client_is_refused(lab):
    with pytest.raises(ValueError, match="secure_sum needs at least 2 clients per round, not 1"):
        lab.config(clients_per_round=1, prior={"use": "global", "source": "secure_sum"})


def test_secure_sum_of_one_client_is_refused_for_a_saved_partition(lab, tmp_path):
    """A file's number of clients is known only once it is read."""
    from fedlt.data.partition import Partition

    labels = lab.federation().observer.data.train_labels
    owner = np.zeros(len(labels), dtype=np.int64)
    Partition.from_owner(owner, labels, num_clients=1, num_classes=4).save(tmp_path / "one.json")
    config = lab.config(
        client="balanced_softmax",
        partition={"file": str(tmp_path / "one.json")},
        clients_per_round=None,
        prior={"use": "global", "source": "secure_sum"},
    )
    with pytest.raises(FedltError, match="secure_sum"):
        run(config)


def test_secure_sum_is_refused_where_single_updates_are_read(lab):
    """A stock Flower strategy sees every client's model, so the sum would hide nothing."""
    config = lab.config(
        strategy="flwr.serverapp.strategy:FedAvg",
        client="balanced_softmax",
        prior={"use": "global", "source": "secure_sum"},
    )
    with pytest.raises(FedltError, match="secure_sum"):
        run(config)


def test_the_prior_changes_what_is_learnt(reference):
    first = reference(client="balanced_softmax").bits
    second = reference(client="balanced_softmax", prior={"use": "global", "source": "oracle"}).bits
    assert len({str(b) for b in (first, second, reference().bits)}) == 3
