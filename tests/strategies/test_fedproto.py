"""FedProto: prototypes against NumPy, and the pull against its formula."""

from __future__ import annotations

import numpy as np
import torch

from fedlt.flower.server_half import make_server_half
from fedlt.losses import nearest_prototype, prototype_distance
from fedlt.runs.evaluations import load_evaluation
from fedlt.strategy import ServerState, Total
from fedlt.worker.worker import Worker
from strategies import FedProto

ALL = {"clients_per_round": None}


def test_only_prototypes_travel(reference):
    outcome = reference(strategy="fedproto")
    broadcast = outcome.checkpoint.tensors["broadcast"]
    assert {n: tuple(t.shape) for n, t in broadcast.items()} == {
        "prototypes": (4, 1, 16),
        "known": (4,),
    }
    assert outcome.result["bytes_down"] == 4 * (4 * 16 + 4)
    assert "personal/head/accuracy" in outcome.rows[-1]
    assert "personal/prototypes/accuracy" not in outcome.rows[-1]  # it is the primary head


def test_prototypes_of_a_round_against_numpy(lab):
    """A client's prototype is the mean feature of a class under its trained model.

    The server's is the mean over the clients that have the class, whatever their sizes.
    """
    federation = lab.federation(strategy="fedproto")
    worker, server = Worker(federation.shares), make_server_half(federation.view)
    data, state = federation.observer.data, server.state
    means, held, plain = [], [], {}
    for cid in range(3):
        client = worker.client(cid, 1, state.broadcast, fixed=state.fixed, personal={})
        update = worker.train(client)
        own = data.partition.clients[cid]
        mean, std = (np.asarray(v).reshape(1, -1, 1, 1) for v in (data.mean, data.std))
        images = torch.tensor((data.train_images[own] / 255 - mean) / std, dtype=torch.float32)
        with torch.no_grad():
            features = client.model.eval().features(images)[:, 0].double().numpy()
        labels = data.train_labels[own]
        counts = np.bincount(labels, minlength=4)
        means.append([features[labels == c].mean(axis=0) if counts[c] else 0 for c in range(4)])
        held.append(counts > 0)
        assert not update.sums
        for name, value in update.plain.items():
            plain[name] = plain.get(name, 0) + value
    new = FedProto().aggregate(state, Total({}, 3.0, (0, 1, 2), 5, plain)).broadcast
    for c in range(4):
        holders = [k for k in range(3) if held[k][c]]
        assert float(new["known"][c]) == bool(holders)
        if holders:
            expected = np.mean([means[k][c] for k in holders], axis=0)
            np.testing.assert_allclose(new["prototypes"][c, 0], expected, rtol=1e-4, atol=1e-5)


def test_a_class_that_nobody_has_keeps_its_prototype():
    before = {"prototypes": torch.ones(3, 1, 2), "known": torch.tensor([1.0, 0.0, 0.0])}
    plain = {
        "prototypes": torch.tensor([[[0.0, 0.0]], [[6.0, 2.0]], [[0.0, 0.0]]]),
        "holders": torch.tensor([0.0, 2.0, 0.0]),
    }
    state = ServerState(4, before)
    after = FedProto().aggregate(state, Total({}, 9.0, (1, 3), 5, plain)).broadcast
    assert after["known"].tolist() == [1.0, 1.0, 0.0]
    assert after["prototypes"][:, 0].tolist() == [[1.0, 1.0], [3.0, 1.0], [1.0, 1.0]]


def test_the_distance_by_hand():
    """(1 + 9) / 2 for the first image; the second's class has no prototype: 5 / 2 over both."""
    features = torch.tensor([[[1.0, 2.0]], [[5.0, 5.0]]], requires_grad=True)
    prototypes = torch.tensor([[[0.0, 0.0]], [[2.0, 5.0]]])
    known, labels = torch.tensor([0.0, 1.0]), torch.tensor([1, 0])
    found = prototype_distance(features, labels, prototypes, known)
    assert float(found.detach()) == 2.5
    (slope,) = torch.autograd.grad(found, features)
    assert slope[:, 0].tolist() == [[-0.5, -1.5], [0.0, 0.0]]  # (f - p) / (B D) * 2


def test_the_nearest_prototype_is_found_among_known_ones():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(20, 2, 5, generator=generator)
    prototypes = torch.randn(6, 2, 5, generator=generator)
    known = torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0, 1.0])
    logits = nearest_prototype(features, prototypes=prototypes, known=known)
    far = (features[:, :, None] - prototypes.transpose(0, 1)).square().sum(-1)  # (B, S, C)
    chosen = [0, 1, 3, 4, 5]
    torch.testing.assert_close(logits[..., chosen], -far[..., chosen], rtol=1e-4, atol=1e-4)
    assert not (logits.argmax(-1) == 2).any()


def test_the_papers_inference_is_primary(lab, reference):
    """A client's class is its feature's nearest prototype, by a loop over test images in NumPy."""
    outcome = reference(strategy="fedproto", **ALL, rounds=1)
    federation, own = lab.federation(strategy="fedproto", **ALL, rounds=1), outcome.personal[2]
    model = federation.view.build_model()
    model.load_state_dict({n: own.get(n, t) for n, t in model.state_dict().items()})
    data, broadcast = federation.observer.data, outcome.groups["broadcast"]
    mean, std = (np.asarray(v).reshape(1, -1, 1, 1) for v in (data.mean, data.std))
    images = torch.tensor((data.eval_images / 255 - mean) / std, dtype=torch.float32)
    with torch.no_grad():
        features = model.eval().features(images)[:, 0].double().numpy()
    prototypes = broadcast["prototypes"][:, 0].double().numpy()
    known = [c for c in range(4) if broadcast["known"][c]]
    hits = np.zeros(4, dtype=int)
    for row, label in zip(features, data.eval_labels, strict=True):
        far = [float(((row - prototypes[c]) ** 2).sum()) for c in known]
        hits[label] += known[int(np.argmin(far))] == label
    scores = load_evaluation(outcome.directory.evaluations / "round_1.npz").personal
    assert scores.heads == ("prototypes", "head")
    assert scores.hits[2, 0].tolist() == hits.tolist()
