"""FedNH: the moved prototypes by hand and by a second implementation, and what clients train."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from fedlt.federation.steps import start_of, step_norm
from fedlt.flower.server_half import make_server_half
from fedlt.models.prototype_head import PrototypeHead, move_prototypes
from fedlt.worker.worker import Worker
from strategies import FedNH

PROTOTYPES, SCALE = "heads.head.prototypes", "heads.head.scale"


def test_one_move_by_hand():
    """w = (1, 0), mu the direction of (0, 5): unit(0.6 w + 0.4 mu) = (3, 2) / sqrt(13).

    The second class has no features and keeps its bits, the third has its own direction.
    """
    old = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    sums = torch.tensor([[0.0, 5.0], [0.0, 0.0], [0.0, 2.0]])
    found = move_prototypes(old, sums, 0.6)
    torch.testing.assert_close(found[0], torch.tensor([3.0, 2.0]) / math.sqrt(13))
    assert torch.equal(found[1], old[1])
    torch.testing.assert_close(found[2], old[2])


def test_without_momentum_a_prototype_is_the_mean_direction_of_the_cohorts_features(lab):
    """Two clients trained one by one; their images' unit features pooled in NumPy."""
    strategy = {"name": "fednh", "momentum": 0.0}
    changes = {"strategy": strategy, "partition": {"num_clients": 2}, "clients_per_round": None}
    federation = lab.federation(**changes)
    worker, server = Worker(federation.shares), make_server_half(federation.view)
    data, features, labels = federation.observer.data, [], []
    for cid in range(2):
        client = worker.client(cid, 1, server.state.broadcast, fixed={}, personal={})
        worker.train(client)
        chosen = data.partition.clients[cid]
        mean, std = (np.asarray(v, np.float32).reshape(1, -1, 1, 1) for v in (data.mean, data.std))
        images = torch.from_numpy((data.train_images[chosen] / np.float32(255) - mean) / std)
        with torch.no_grad():
            rows = client.model.eval().features(images).squeeze(1).double().numpy()
        features.append(rows / np.linalg.norm(rows, axis=1, keepdims=True))
        labels.append(data.train_labels[chosen])
    pooled, owner = np.concatenate(features), np.concatenate(labels)
    means = np.stack([pooled[owner == label].mean(0) for label in range(4)])
    expected = means / np.linalg.norm(means, axis=1, keepdims=True)
    found = lab.run(**changes, rounds=1).groups["broadcast"][PROTOTYPES]
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-5)


@pytest.mark.parametrize("mean", ["plain", "examples"])
def test_models_are_averaged_as_the_option_says(lab, mean):
    """All clients alike, as the authors average, or by n_k / n; prototypes move alike."""
    changes = {"strategy": {"name": "fednh", "mean": mean}, "clients_per_round": None}
    federation = lab.federation(**changes)
    worker, server = Worker(federation.shares), make_server_half(federation.view)
    sizes = federation.observer.data.client_sizes.astype(float)
    shares = sizes / sizes.sum() if mean == "examples" else np.full(len(sizes), 1 / len(sizes))
    assert np.ptp(sizes) > 0
    wanted = {}
    for cid, share in enumerate(shares):
        client = worker.client(cid, 1, server.state.broadcast, fixed={}, personal={})
        worker.train(client)
        for name, tensor in client.model.state().items():
            if tensor.is_floating_point() and name != PROTOTYPES:
                wanted[name] = wanted.get(name, 0) + share * tensor.double()
    found = lab.run(**changes, rounds=1).groups["broadcast"]
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name].double(), tensor, rtol=1e-5, atol=1e-6)
    other = "plain" if mean == "examples" else "examples"
    again = lab.run(strategy={"name": "fednh", "mean": other}, clients_per_round=None, rounds=1)
    torch.testing.assert_close(found[PROTOTYPES], again.groups["broadcast"][PROTOTYPES])


def test_full_momentum_keeps_the_first_prototypes(lab, reference):
    start = make_server_half(lab.federation(strategy="fednh").view).state.broadcast[PROTOTYPES]
    kept = reference(strategy={"name": "fednh", "momentum": 1.0}).groups["broadcast"]
    torch.testing.assert_close(kept[PROTOTYPES], start)
    moved = reference(strategy="fednh").groups["broadcast"]
    assert not torch.allclose(moved[PROTOTYPES], start, atol=1e-3)
    torch.testing.assert_close(moved[PROTOTYPES].norm(dim=1), torch.ones(4))
    assert float(kept[SCALE]) != 20.0


def test_clients_leave_the_prototypes_alone_and_send_sums_beside_the_model(lab):
    federation = lab.federation(strategy="fednh")
    worker, server = Worker(federation.shares), make_server_half(federation.view)
    client = worker.client(1, 1, server.state.broadcast, fixed={}, personal={})
    update = worker.train(client)
    assert torch.equal(client.model.state()[PROTOTYPES], server.state.broadcast[PROTOTYPES])
    assert torch.equal(update.sums[PROTOTYPES], server.state.broadcast[PROTOTYPES])
    assert update.sums["sums"].shape == update.sums[PROTOTYPES].shape
    assert not update.plain
    names = worker.model.parameter_names("shared")
    state = client.model.state()
    steps = [(state[n] - client.broadcast[n]).double().norm() for n in names]
    found = step_norm(update.sums, start_of(update, client.broadcast, names), names)
    assert found == pytest.approx(float(torch.stack(steps).norm()))  # what faults.detect sees
    absent = client.data.class_counts == 0
    assert not update.sums["sums"][absent].any()
    lengths = update.sums["sums"].norm(dim=1) * update.weight
    assert bool((lengths <= client.data.class_counts * 1.0001).all())


def test_logits_are_scaled_cosines(lab):
    federation = lab.federation(strategy="fednh")
    worker, server = Worker(federation.shares), make_server_half(federation.view)
    client = worker.client(1, 1, server.state.broadcast, fixed={}, personal={})
    batch = next(client.batches(1))
    found = FedNH().objective(client, batch)
    with torch.no_grad():
        features = client.model.features(batch.images).squeeze(1)
        prototypes = server.state.broadcast[PROTOTYPES]
        cosines = functional.cosine_similarity(features[:, None], prototypes[None], dim=-1)
        expected = functional.cross_entropy(20.0 * cosines, batch.labels)
    assert float(found.detach()) == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize(("features", "classes"), [(16, 4), (3, 10)])
@pytest.mark.parametrize("start", ["orthogonal", "uniform"])
def test_first_prototypes_are_unit_and_orthogonal_where_there_is_room(features, classes, start):
    torch.manual_seed(0)
    prototypes = PrototypeHead(features, classes, scale=20.0, start=start).prototypes.detach()
    gram = prototypes @ prototypes.T
    torch.testing.assert_close(gram.diagonal(), torch.ones(classes))
    off = float((gram - torch.eye(classes)).abs().max())
    assert (off < 1e-5) == (start == "orthogonal" and features >= classes)
