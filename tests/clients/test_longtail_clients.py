"""Long-tail losses on a client: whose counts they read, from which round, and what is refused."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from clients import Equalisation, LdamDrw
from fedlt.client import ClientPlugin
from fedlt.errors import FedltError
from fedlt.flower.server_half import make_server_half
from fedlt.optim.batch import Batch
from fedlt.worker.worker import Worker

ORACLE = {"use": "global", "source": "oracle"}
SHARDS = {"scheme": "shards", "shards_per_client": 2}  # some classes are absent


def client_of(lab, client, *, round_=1, **changes):
    federation = lab.federation(client=client, partition=SHARDS, **changes)
    server, worker = make_server_half(federation.view), Worker(federation.shares)
    return federation.observer.data.client_counts[1], worker.client(
        1,
        round_,
        server.state.broadcast,
        fixed=server.state.fixed,
        personal={},
        global_counts=server.prior_counts([0, 1, 2]),
    )


def test_fedlc_reads_own_counts(lab):
    counts, client = client_of(lab, {"name": "fedlc", "tau": 2.0})
    assert 0 in counts
    expected = [-2 * n**-0.25 if n else -1e4 for n in counts.tolist()]
    assert client.tensors["calibration"].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("source", ["oracle", "secure_sum"])
def test_fedir_divides_the_known_mix_by_its_own(lab, source):
    counts, client = client_of(lab, "fedir", prior={"use": "global", "source": source})
    data = lab.federation(partition=SHARDS).observer.data
    heard = data.client_counts if source == "oracle" else data.client_counts[:3]
    share = heard.sum(axis=0) / heard.sum()
    expected = [p * counts.sum() / n if n else 0.0 for p, n in zip(share, counts, strict=True)]
    assert client.tensors["class_weights"].tolist() == pytest.approx(expected)
    mean = sum(n * w for n, w in zip(counts, expected, strict=True)) / counts.sum()
    assert mean == pytest.approx(share[counts > 0].sum())


def test_fedir_is_refused_where_nobody_knows_the_mix(lab):
    with pytest.raises(FedltError, match="'fedir' needs the class mix of all clients"):
        lab.federation(client="fedir")


@pytest.mark.parametrize(("round_", "is_late"), [(1, False), (6, False), (7, True), (10, True)])
def test_reweighting_waits_for_the_global_round(lab, round_, is_late):
    """0.6 of 10 rounds pass without it, however many epochs a client has trained by then."""
    client = {"name": "ldam_drw", "drw_start": 0.6}
    counts, client = client_of(lab, client, round_=round_, rounds=10)
    weights = client.tensors["class_weights"]
    if not is_late:
        assert weights.tolist() == [1.0] * 4
        return
    effective = [(1 - 0.9999**n) / 1e-4 for n in counts.tolist()]
    raw = np.array([1 / e if e else 0.0 for e in effective])
    assert weights.tolist() == pytest.approx(raw / raw.sum() * (counts > 0).sum(), rel=1e-5)
    assert weights[counts == 0].eq(0).all()


def test_ldam_predicts_by_the_cosine(lab):
    """The head has no bias, its logits are 20 cos, and margins are in the same units."""
    counts, client = client_of(lab, {"name": "ldam_drw", "scale": 20.0, "max_margin": 0.4})
    model = client.model.eval()
    assert model.names()[-1] == "heads.head.weight"
    images = next(client.batches(1)).images
    with torch.no_grad():
        features, logits = model.features(images), model(images)
    cosine = torch.cosine_similarity(features, model.heads["head"].weight, dim=-1)
    torch.testing.assert_close(logits[:, 0], 20 * cosine, rtol=1e-4, atol=1e-4)
    assert LdamDrw().predict(logits).equal(logits.mean(1))
    rarest = counts[counts > 0].min()
    expected = [8 * (rarest / n) ** 0.25 if n else 8.0 for n in counts.tolist()]
    assert client.tensors["margins"].tolist() == pytest.approx(expected, rel=1e-5)


def test_cosine_heads_are_refused_where_norms_are_read(lab):
    with pytest.raises(FedltError, match="'fedloge' with client 'ldam_drw': the strategy needs"):
        lab.federation(strategy="fedloge", client="ldam_drw")


def test_focal_without_focus_is_fedavg(reference):
    """The printed value may differ in its last digits, the model may not."""
    found = reference(client={"name": "focal", "gamma": 0.0}).bits
    expected = reference().bits
    rows, others = found.pop("rows"), expected.pop("rows")
    assert found == expected
    for row, other in zip(rows, others, strict=True):
        loss = other.pop("train/loss")
        assert row.pop("train/loss") == pytest.approx(loss, rel=1e-6)
        assert row == other


def test_the_defaults_of_a_plugin_refuse_nothing():
    assert not ClientPlugin.traits.needs_global_prior
    assert not ClientPlugin.traits.cosine_heads


def test_prior_of_logit_adjustment_is_the_files(reference):
    client = {"name": "logit_adjustment", "tau": 1.0}
    own, known = reference(client=client), reference(client=client, prior=ORACLE)
    assert own.bits != known.bits


@pytest.mark.parametrize(
    ("threshold", "gone"), [(0.1, []), (0.25, [2]), (0.3, [2]), (0.35, [1, 2]), (1.0, [1, 2])]
)
def test_equalisation_leaves_out_the_classes_below_its_threshold(threshold, gone):
    """Shares 0.5, 0.3 and 0.2, all drawn: an image of class 0 has no softmax term of rare ones."""
    logits = torch.tensor([[[0.2, 1.0, -0.5]]])
    batch = Batch(torch.zeros(1, 1, 2, 2), torch.tensor([0]))
    batch.extra["equalisation"] = torch.ones(1, 3, dtype=torch.bool)
    client = SimpleNamespace(tensors={"log_prior": torch.tensor([0.5, 0.3, 0.2]).log()})
    terms = [math.exp(z) for c, z in enumerate((0.2, 1.0, -0.5)) if c not in gone]
    found = Equalisation(threshold=threshold).loss(logits, batch, client)
    assert found.item() == pytest.approx(math.log(sum(terms)) - 0.2)
