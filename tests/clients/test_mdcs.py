"""MDCS on a client: its loss against NumPy, its views, its clock, its smallest clients."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from clients import BalancedSoftmax, Mdcs
from fedlt.check import Bench
from fedlt.client import Batch
from fedlt.data.partition import Partition
from fedlt.errors import FedltError
from fedlt.federation import Parties
from fedlt.losses import cross_entropy

LAMBDAS = np.array([-0.5, 1.0, 2.5])
IID = {"scheme": "iid"}  # every client holds every class


def bench_of(lab, client="mdcs", **changes):
    return Bench(lab.federation(client=client, **changes))


def log_softmax(values):
    return values - np.log(np.exp(values).sum(axis=-1, keepdims=True))


def by_hand(logits, labels, counts, weight):
    """The mean over 2B views of each expert's CE, and its KL over the images it has right."""
    total, half = 0.0, len(labels)
    for k, lam in enumerate(LAMBDAS):
        log_p = log_softmax(logits[:, k] + lam * np.log(counts))
        total -= np.mean([row[y] for row, y in zip(log_p, [*labels, *labels], strict=True)])
        right = [i for i in range(half) if log_p[i].argmax() == labels[i]]
        kept = [np.exp(log_p[i]) @ (log_p[i] - log_p[half + i]) for i in right]
        total += weight * (np.mean(kept) if kept else 0.0)
    return total


@pytest.mark.parametrize(("round_", "weight"), [(1, 0.03), (10, 0.3), (20, 0.6), (400, 0.6)])
def test_the_loss_by_hand(lab, round_, weight):
    """The paper's clock: 0.6 min(epoch / 20, 1) of 400; here it is the global round."""
    client = bench_of(lab, rounds=400, partition=IID).client(1, round_=round_)
    counts = client.tensors["class_counts"].double()
    assert counts.min() > 0
    generator = np.random.default_rng(0)
    logits, labels = generator.normal(size=(16, 3, 4)) * 9, generator.integers(0, 4, 8)
    batch = Batch(torch.zeros(16, 1, 8, 8), torch.tensor(labels).repeat(2))
    expected = by_hand(logits, labels, counts.numpy(), weight)
    found = Mdcs().loss(torch.tensor(logits), batch, client)
    assert found.item() == pytest.approx(expected, rel=1e-6)
    mean = Mdcs(reduce="mean").loss(torch.tensor(logits), batch, client)
    assert mean.item() == pytest.approx(expected / 3, rel=1e-6)


@pytest.mark.parametrize(("lam", "other"), [(0.0, cross_entropy), (1.0, None)])
def test_equal_experts_without_distillation_are_three_losses(lab, lam, other):
    """Lambda 0: three cross-entropies; lambda 1: three balanced softmaxes."""
    client = {"name": "mdcs", "lambdas": [lam] * 3, "kd_weight": 0.0, "reduce": "mean"}
    client = bench_of(lab, client, partition=IID).client(1)
    batch = next(client.batches(1))
    logits = client.model(batch.images)
    found = client.plugin.loss(logits, batch, client)
    if other is None:
        expected = BalancedSoftmax().loss(logits, batch, client)
    else:
        expected = other(logits, batch.labels)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


def test_a_single_stream_is_not_shifted(lab):
    client = bench_of(lab).client(1)
    batch = next(client.batches(1))
    logits = torch.randn(len(batch.labels), 1, 4)
    found = Mdcs(kd_weight=0.0).loss(logits, batch, client)
    assert torch.equal(found, cross_entropy(logits, batch.labels))


# ---- views


def test_a_batch_is_weak_views_then_strong_ones(lab):
    settings = {"local": {"augment": "crop_flip", "batch_size": 8}}
    client = bench_of(lab, {"name": "mdcs", "rotation": 0.0}, **settings).client(1)
    plain = bench_of(lab, "cross_entropy", **settings).client(1)
    for both, weak in zip(client.batches(2), plain.batches(2), strict=True):
        count = len(weak.labels)
        assert torch.equal(both.images[:count], weak.images)
        assert torch.equal(both.labels, weak.labels.repeat(2))
        assert not torch.equal(both.images[count:], weak.images)


@pytest.mark.parametrize("strong", ["autoaugment", "distort"])
def test_views_are_keyed_by_round_client_and_epoch(lab, strong):
    bench = bench_of(lab, {"name": "mdcs", "strong": strong})

    def images(cid, round_, epoch):
        batches = bench.client(cid, round_=round_).epoch_batches(epoch)
        return torch.cat([batch.images for batch in batches])

    first = images(1, 1, 0)
    assert torch.equal(images(1, 1, 0), first)
    assert not torch.equal(images(1, 1, 1), first)
    assert not torch.equal(images(1, 2, 0), first)
    turned = first[: len(first) // 2]
    assert not torch.equal(turned, first[len(first) // 2 :])


# ---- the model


def test_predictions_are_the_mean_of_plain_logits(lab):
    client = bench_of(lab).client(1)
    model = client.model.eval()
    with torch.no_grad():
        logits = model(next(client.batches(1)).images)
    assert logits.shape[1:] == (3, 4)
    assert logits.abs().max() <= 30.001
    torch.testing.assert_close(client.plugin.predict(logits), logits.sum(dim=1) / 3)


def test_nothing_is_kept_on_a_client(lab):
    bench = bench_of(lab)
    assert bench.worker.model.names("personal") == ()
    assert bench.task(1).personal == {}


def test_experts_are_averaged_by_their_numbers(lab):
    """Exchanging experts 1 and 3 of one client changes the mean; of all clients, only its order."""
    bench = bench_of(lab)
    answers = []
    for cid in (1, 2):
        update = bench.task(cid)
        answers.append({name: tensor.clone() for name, tensor in update.sums.items()})

    def exchanged(tensors):
        names = {"branches.0": "branches.2", "branches.2": "branches.0"}
        new = {}
        for name, tensor in tensors.items():
            old = next((n for n in names if n in name), None)
            new[name.replace(old, names[old]) if old else name] = tensor
        head = "heads.head.weight"
        return {**new, head: new[head][[2, 1, 0]]}

    def mean(*updates):
        return {name: sum(u[name] for u in updates) / len(updates) for name in updates[0]}

    first, second = answers
    honest, mixed = mean(first, second), mean(exchanged(first), second)
    changed = [name for name in honest if not torch.allclose(honest[name], mixed[name])]
    assert all("branches.0" in n or "branches.2" in n or "heads" in n for n in changed)
    assert len(changed) >= 10
    both = exchanged(mean(exchanged(first), exchanged(second)))
    assert all(torch.allclose(both[name], honest[name]) for name in honest)


# ---- small clients


def sized(lab, owners, **changes):
    """Return a federation in which client k holds the images that ``owners`` (N,) says."""
    federation = lab.federation(client="mdcs", **changes)
    labels = federation.observer.data.train_labels
    number = federation.view.num_clients
    owner = owners(labels)
    partition = Partition.from_owner(owner, labels, num_clients=number, num_classes=4)
    counts = partition.counts(labels)
    data = replace(federation.observer.data, partition=partition, client_counts=counts)
    view = federation.view
    return Parties.of(view.config, view.strategy, view.plugin, data)


def few_images(labels):
    """Client 0: one image. 1: two classes. 2: a single class. 3: nothing. 4: all others."""
    owner = np.full(len(labels), 4)
    for cid, label, count in ((0, 0, 1), (1, 0, 3), (1, 1, 2), (2, 2, 5)):
        free = np.flatnonzero((labels == label) & (owner == 4))
        owner[free[:count]] = cid
    return owner


@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("strategy", ["fedavg", "fedrod"])
def test_the_smallest_clients_give_finite_numbers(lab, norm, strategy):
    """A batch of one, a client smaller than a batch, absent classes, a single class, no image."""
    federation = sized(lab, few_images, model={"norm": norm}, strategy=strategy)
    for cid in range(5):
        update = Bench(federation).task(cid)
        assert all(bool(torch.isfinite(tensor).all()) for tensor in update.sums.values()), cid
        assert all(np.isfinite(value) for value in update.metrics.values()), cid


@pytest.mark.parametrize("use", ["local_floor1", "global", "mix"])
def test_every_prior_gives_finite_numbers_where_classes_are_absent(lab, use):
    prior = {"use": use, "source": "own" if use == "local_floor1" else "oracle"}
    update = Bench(sized(lab, few_images, prior=prior)).task(1)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in update.sums.values())


def test_a_single_class_moves_no_weight_and_an_absent_class_no_class_vector(lab):
    federation = sized(lab, few_images)
    start = Bench(federation).server.state.broadcast
    single, two = Bench(federation).task(2), Bench(federation).task(1)
    parameters = Bench(federation).worker.model.parameter_names()
    assert all(torch.equal(single.sums[name], start[name]) for name in parameters)
    moved = two.sums["heads.head.weight"].ne(start["heads.head.weight"]).any(dim=-1)  # (S, C)
    assert moved[:, :2].all()
    assert not moved[:, 2:].any()


@pytest.mark.parametrize(
    ("client", "prior", "strategy", "is_said"),
    [
        ("mdcs", {}, "fedavg", True),
        ({"name": "class_balanced_sampling", "loss": "mdcs"}, {}, "fedavg", True),
        ("mdcs", {"use": "local_floor1"}, "fedavg", False),
        ("mdcs", {}, "centralised", False),
        ("focal", {}, "fedavg", False),
    ],
)
def test_clients_of_a_single_class_are_said(lab, client, prior, strategy, is_said):
    shards = {"scheme": "shards", "shards_per_client": 1}  # sorted by class, dealt in runs
    federation = lab.federation(client=client, prior=prior, strategy=strategy, partition=shards)
    single = ((federation.observer.data.client_counts > 0).sum(axis=1) == 1).sum()
    assert single >= 1
    notes = [note for note in federation.observer.notes() if "single class" in note]
    assert bool(notes) == is_said
    if notes:
        assert notes[0].startswith(f"{single} of {federation.view.num_clients} clients hold")


# ---- with a data plugin


def test_a_curriculum_feeds_the_experts(lab):
    """The synthetic images of DisCL get both views; clients without a tail train as without it."""
    client = {"name": "discl", "tail_below": 0.8, "loss": "mdcs", **lab.pool()}
    bench = bench_of(lab, client)
    batch = next(bench.client(1).batches(1))
    half = len(batch.labels) // 2
    assert torch.equal(batch.labels[:half], batch.labels[half:])
    assert bench.worker.shares.plugin.traits.experts
    outcome = lab.run(client=client, rounds=2)
    assert outcome.result["client"] == "discl + mdcs"
    assert all(np.isfinite(row["train/loss"]) for row in outcome.rows)


# ---- settings


def test_lambdas_off_their_mean_are_warned_of(caplog):
    with caplog.at_level(logging.WARNING):
        Mdcs()
        Mdcs(lambdas=(0.0, 1.0, 2.0))
        assert not caplog.records
        Mdcs(lambdas=(0.0, 1.0, 3.0))
    assert "the mean of lambdas [0.0, 1.0, 3.0] is 1.33, not 1" in caplog.text


def test_one_expert_is_refused(lab):
    with pytest.raises(FedltError, match=r"lambdas: \[1.0\] are not at least 2 experts"):
        lab.federation(client={"name": "mdcs", "lambdas": [1.0]})


def test_a_backbone_of_one_layer_is_refused(lab):
    with pytest.raises(FedltError, match="mlp cannot be split into experts"):
        bench_of(lab, model={"name": "mlp", "width": 8})
