"""Samplers and mixup: shares of the draws, weights, mixed batches; small and odd clients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clients import CLIENTS, Focal, Mixup
from fedlt.client import Batch
from fedlt.data.partition import Partition
from fedlt.data.resampling import class_shares, draw_rows
from fedlt.flower.server_half import make_server_half
from fedlt.methods.composition import Composed
from fedlt.worker.worker import Worker

SAMPLERS = {"class_balanced_sampling": 0.0, "square_root_sampling": 0.5}
SIX = ("fedavg", "fedprox", "ditto", "fedrep", "fedrod", "fedloge")


def client_of(lab, client, cid=1, **changes):
    federation = lab.federation(client=client, **changes)
    state = make_server_half(federation.view).state
    return Worker(federation.shares).client(cid, 1, state.broadcast, fixed=state.fixed, personal={})


@pytest.mark.parametrize(("power", "expected"), [(1, [8, 2, 0, 6]), (0, [1, 1, 0, 1])])
def test_shares_by_hand(power, expected):
    found = class_shares(torch.tensor([8, 2, 0, 6]), power=power)
    assert found.tolist() == pytest.approx([v / sum(expected) for v in expected])


def test_square_root_shares_by_hand():
    """Of 9, 4, 0 and 1 images: 3, 2, 0, 1 sixths."""
    found = class_shares(torch.tensor([9, 4, 0, 1]), power=0.5)
    assert found.tolist() == pytest.approx([3 / 6, 2 / 6, 0, 1 / 6])


def test_draws_have_the_shares():
    """20,000 draws: the standard error of a share of a half is 0.0035."""
    labels = torch.tensor([0] * 50 + [1] * 3)
    generator = torch.Generator().manual_seed(0)
    rows = draw_rows(labels, torch.tensor([0.5, 0.5, 0.0]), 20_000, generator)
    assert (rows >= 50).double().mean().item() == pytest.approx(0.5, abs=0.015)
    each = rows.bincount(minlength=53)[50:].double() / 10_000
    assert each.tolist() == pytest.approx([1 / 3] * 3, abs=0.02)


@pytest.mark.parametrize(("name", "power"), SAMPLERS.items())
def test_an_epoch_is_as_long_and_weighs_own_classes_back(lab, name, power):
    """E[own f(y)] under the drawn shares is the mean of f over the client's images.

    A drawn share q of n draws has the standard error sqrt(q (1 - q) / n); a class of share p is
    weighed by p / q, which multiplies the error.
    """
    client = client_of(lab, name)
    counts = client.data.class_counts.double()
    batches = [batch for epoch in range(60) for batch in client.plugin.batches(client, epoch)]
    labels = torch.cat([batch.labels for batch in batches])
    own = torch.cat([batch.extra["own"] for batch in batches]).double()
    assert len(labels) == 60 * client.data.num_examples
    drawn = labels.bincount(minlength=len(counts)).double() / len(labels)
    expected = np.where(counts > 0, counts.numpy() ** power, 0)
    share, mix = expected / expected.sum(), (counts / counts.sum()).numpy()
    error = np.sqrt(share * (1 - share) / len(labels))
    assert (np.abs(drawn.numpy() - share) <= 5 * error).all()
    weighed = torch.zeros(len(counts)).double().index_add(0, labels, own) / len(labels)
    error *= np.divide(mix, share, out=np.zeros_like(mix), where=share > 0)
    assert (np.abs(weighed.numpy() - mix) <= 5 * error + 1e-6).all()


@pytest.mark.parametrize("name", SAMPLERS)
def test_draws_are_keyed(lab, name):
    first, again = ([b.labels.tolist() for b in client_of(lab, name).batches(2)] for _ in range(2))
    assert first == again
    client = client_of(lab, name)
    one, two = ([b.labels.tolist() for b in client.plugin.batches(client, e)] for e in (0, 1))
    assert one != two


# ---- mixup


def test_a_mixed_batch_by_hand(lab):
    client, plain = client_of(lab, "mixup"), client_of(lab, "cross_entropy")
    for mixed, batch in zip(client.batches(1), plain.batches(1), strict=True):
        share = mixed.extra["share"]
        assert len(set(share.tolist())) == 1
        assert torch.equal(mixed.labels, batch.labels)
        for row, image in enumerate(mixed.images):
            others = share[0] * batch.images[row] + (1 - share[0]) * batch.images
            near = (others - image).abs().amax(dim=(1, 2, 3)) < 1e-5
            assert mixed.extra["mixed"][row] in batch.labels[near]


def test_mixup_of_cross_entropy_is_cross_entropy_with_soft_labels(lab):
    """-sum_c t_c log p_c with t = share onehot(y) + (1 - share) onehot(y')."""
    client = client_of(lab, "mixup")
    batch = next(client.batches(1))
    logits = torch.randn(len(batch.labels), 1, 4, generator=torch.Generator().manual_seed(0))
    share = batch.extra["share"][:, None]
    one_hot = torch.nn.functional.one_hot
    soft = share * one_hot(batch.labels, 4) + (1 - share) * one_hot(batch.extra["mixed"], 4)
    expected = torch.nn.functional.cross_entropy(logits[:, 0], soft)
    torch.testing.assert_close(client.plugin.loss(logits, batch, client), expected)


def test_mixup_mixes_any_loss_that_is_a_mean(lab):
    client = client_of(lab, {"name": "mixup", "loss": "focal"})
    batch = next(client.batches(1))
    logits = torch.randn(len(batch.labels), 1, 4, generator=torch.Generator().manual_seed(0))
    share, plugin = batch.extra["share"][0], Focal()
    first = plugin.loss(logits, Batch(batch.images, batch.labels), client)
    second = plugin.loss(logits, Batch(batch.images, batch.extra["mixed"]), client)
    found = Composed(Mixup(), plugin).loss(logits, batch, client)
    torch.testing.assert_close(found, share * first + (1 - share) * second)


# ---- odd clients


def sizes_file(lab, tmp_path):
    """Clients with one image, one class, fewer images than a batch, and the rest."""
    labels = lab.federation().observer.data.train_labels
    owner = np.full(len(labels), 3)
    owner[0], owner[1:5] = 0, 1
    owner[np.flatnonzero(labels == 1)[:2]] = 2
    owner[np.flatnonzero(labels == 2)[:3]] = 2
    part = Partition.from_owner(owner, labels, num_clients=4, num_classes=4)
    part.save(tmp_path / "odd.json")
    return {"file": str(tmp_path / "odd.json"), "num_clients": 4}


NEW = (*SAMPLERS, "mixup", "equalisation", "score_facility_location", "score_graph_cut")


@pytest.mark.parametrize("client", NEW)
def test_tiny_clients_train_without_nan(lab, tmp_path, client):
    outcome = lab.run(client=client, partition=sizes_file(lab, tmp_path), clients_per_round=4)
    assert outcome.result["excluded"] == []
    assert all(t.isfinite().all() for t in outcome.checkpoint.tensors["broadcast"].values())


@pytest.mark.parametrize("strategy", SIX)
@pytest.mark.parametrize("client", ["mixup", "class_balanced_sampling"])
def test_the_six_strategies_train_on_it(lab, strategy, client):
    assert client in CLIENTS
    pair = {"name": client, "loss": "balanced_softmax"}
    outcome = lab.run(strategy=strategy, client=pair, rounds=1)
    assert outcome.result["excluded"] == []
    assert 0 < outcome.rows[-1]["train/loss"] < 30
