"""FedNTD and FedLMD against a loop in NumPy, and what they reduce to."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedlt.flower.server_half import make_server_half
from fedlt.worker.worker import Worker
from strategies import FedAvg, FedLMD, FedNTD

PLAIN = {"model": {"name": "mlp", "width": 4, "norm": "group"}}
SHARDS = {"partition": {"scheme": "shards", "shards_per_client": 2}}


def start(lab, **changes):
    federation = lab.federation(**{**PLAIN, **SHARDS, **changes})
    server, worker = make_server_half(federation.view), Worker(federation.shares)
    state = server.state
    client = worker.client(1, 1, state.broadcast, fixed=state.fixed, personal={})
    client.keep_start()
    return client


def moved(client):
    """Return a batch and the logits of the received and of the trained model for it."""
    batch = next(client.batches(1))
    with torch.no_grad():
        before = client.model(batch.images)[:, 0].double().numpy()
    client.train(FedAvg().objective, epochs=2)
    with torch.no_grad():
        return batch, before, client.model(batch.images)[:, 0].double().numpy()


def soft(values):
    powers = np.exp(values - values.max())
    return powers / powers.sum()


def by_hand(batch, before, after, *, majority, tau):
    """CE + 2 * KL, image by image, the classes that count picked out one by one."""
    cross, kept = 0.0, 0.0
    for label, teacher, student in zip(batch.labels.tolist(), before, after, strict=True):
        cross -= np.log(soft(student)[label])
        others = [c for c in range(4) if c != label]
        asked = [c for c in others if c not in majority]
        if asked:
            p, q = soft(teacher[asked] / tau), soft(student[others] / tau)
            kept += sum(
                pc * np.log(pc / q[others.index(c)]) for pc, c in zip(p, asked, strict=True)
            )
    return (cross + 2 * kept) / len(before)


@pytest.mark.parametrize("tau", [1.0, 3.0])
def test_fedntd_by_hand(lab, tau):
    client = start(lab)
    batch, before, after = moved(client)
    found = FedNTD(beta=2.0, tau=tau).objective(client, batch).item()
    assert found == pytest.approx(by_hand(batch, before, after, majority=(), tau=tau), rel=1e-5)


@pytest.mark.parametrize("tau", [1.0, 3.0])
def test_fedlmd_by_hand(lab, tau):
    client = start(lab)
    counts = client.data.class_counts.numpy()
    majority = np.flatnonzero(counts > counts.mean()).tolist()
    assert 0 < len(majority) < 4
    batch, before, after = moved(client)
    found = FedLMD(beta=2.0, tau=tau).objective(client, batch).item()
    expected = by_hand(batch, before, after, majority=majority, tau=tau)
    assert found == pytest.approx(expected, rel=1e-5)


def test_equal_counts_have_no_majority(lab):
    """FedLMD is FedNTD then, bit for bit."""
    client = start(lab)
    batch, _, _ = moved(client)
    client.tensors["class_counts"] = torch.full((4,), 9)
    assert torch.equal(FedLMD().objective(client, batch), FedNTD().objective(client, batch))


def test_the_teacher_has_the_clients_own_norms(lab):
    """With local BatchNorm, what is received lacks it: the teacher keeps the start of the task."""
    client = start(lab, model={"name": "mlp", "width": 4, "norm": "batch"}, batchnorm="local")
    images = next(client.batches(1)).images
    with torch.no_grad():
        wanted = client.model.eval()(images)
    client.train(FedAvg().objective, epochs=2)
    torch.testing.assert_close(client.frozen_logits(client.start(), images), wanted)
    assert not torch.equal(client.model.eval()(images), wanted)
