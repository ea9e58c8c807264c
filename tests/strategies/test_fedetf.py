"""FedETF: the frame's closed form, its loss by hand, and the tuned heads against autograd."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from fedlt.flower.server_half import make_server_half
from fedlt.models.class_statistics import client_features
from fedlt.models.etf_head import EtfHead
from fedlt.rng import torch_generator
from fedlt.worker.worker import Worker
from strategies import FedETF

QUICK = {"name": "fedetf", "alternations": 2, "tune_epochs": 1}


def start(lab, **changes):
    federation = lab.federation(strategy=QUICK, **changes)
    worker, server = Worker(federation.shares), make_server_half(federation.view)
    state = server.state
    client = worker.client(1, 1, state.broadcast, fixed=state.fixed, personal={})
    return worker, server, client


@pytest.mark.parametrize(("features", "classes"), [(3, 10), (9, 10), (10, 10), (64, 4)])
def test_the_frame_is_exact_whatever_the_backbones_width(features, classes):
    """Norms 1, every cosine -1/(C-1), rows summing to 0: also with fewer features than classes."""
    frame = EtfHead(features, classes, torch_generator(0, "frame")).classes.double()
    gram = frame @ frame.T
    expected = torch.full((classes, classes), -1 / (classes - 1), dtype=torch.float64)
    torch.testing.assert_close(gram, expected.fill_diagonal_(1), atol=1e-6, rtol=0)
    torch.testing.assert_close(frame.sum(0), torch.zeros(classes, dtype=torch.float64), atol=1e-6,
                               rtol=0)  # fmt: skip


def test_loss_by_hand(lab):
    """CE of s cos(P f + b, v_c) + log max(n_c, 1), with the cosines written out."""
    _, _, client = start(lab)
    batch = next(client.batches(1))
    model, state = client.model.eval(), client.model.state()
    counts = client.data.class_counts.clone()
    counts[3] = 0
    client.tensors["class_counts"] = counts
    found = FedETF().objective(client, batch)
    with torch.no_grad():
        features = model.features(batch.images).squeeze(1)
        weight, bias = (state[f"heads.head.projection.{n}"] for n in ("weight", "bias"))
        projected = features @ weight.T + bias
        frame = state["heads.head.classes"]
        cosines = functional.cosine_similarity(projected[:, None], frame[None], dim=-1)
        prior = torch.tensor([math.log(max(int(n), 1)) for n in counts])
        expected = functional.cross_entropy(1.0 * cosines + prior, batch.labels)
    assert float(found.detach()) == pytest.approx(float(expected), rel=1e-5)


def test_the_frame_travels_once_and_the_scale_learns(reference):
    tensors = reference(strategy=QUICK).checkpoint.tensors
    assert set(tensors["fixed"]) == {"heads.head.classes"}
    assert "heads.head.classes" not in tensors["broadcast"]
    assert float(tensors["broadcast"]["heads.head.scale"]) != 1.0


def test_balanced_softmax_plugin_under_floor1_is_the_same_method(reference):
    plain = reference(strategy=QUICK).groups["broadcast"]
    prior = {"use": "local_floor1"}
    other = reference(strategy=QUICK, client="balanced_softmax", prior=prior).groups["broadcast"]
    for name, tensor in plain.items():
        torch.testing.assert_close(other[name], tensor, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("momentum", "decay"), [(0.0, 0.0), (0.9, 0.1)])
def test_tuning_by_autograd_on_features(lab, momentum, decay):
    """In turns: plain CE on the class vectors alone, then on the projection alone.

    Torch's own SGD, a new one for each half of a turn. As in the authors' code the projection has
    momentum and weight decay, the class vectors have neither.
    """
    worker, server, client = start(lab, local={"momentum": momentum, "weight_decay": decay})
    del worker, server
    model, strategy = client.model, FedETF(alternations=2, tune_epochs=2)
    features, labels = client_features(client.model, client.data, {})
    head = model.heads["head"]
    weight = head.projection.weight.detach().clone().requires_grad_()
    bias = head.projection.bias.detach().clone().requires_grad_()
    classes = head.classes.clone().requires_grad_()
    generator = torch_generator(client.seed, "fedetf tuning", 1, 1)
    of_projection = {"lr": 0.05, "momentum": momentum, "weight_decay": decay}
    for trained, rule in (([classes], {"lr": 0.1}), ([weight, bias], of_projection)) * 2:
        optimizer = torch.optim.SGD(trained, **rule)
        orders = [torch.randperm(len(labels), generator=generator) for _ in range(2)]
        for rows in (part for order in orders for part in order.split(8)):
            optimizer.zero_grad()
            directions = functional.normalize(functional.linear(features[rows], weight, bias))
            functional.cross_entropy(directions @ classes.T, labels[rows]).backward()
            optimizer.step()
    before = {name: tensor.clone() for name, tensor in model.state().items()}
    own = strategy.adapt(client)
    torch.testing.assert_close(own["classes"], classes.detach())
    torch.testing.assert_close(head.projection.weight.detach(), weight.detach())
    torch.testing.assert_close(head.projection.bias.detach(), bias.detach())
    moved = {n for n, tensor in model.state().items() if not torch.equal(tensor, before[n])}
    assert moved == {"heads.head.projection.weight", "heads.head.projection.bias"}


def test_without_tuning_the_personal_model_is_the_generic_one(reference):
    none = reference(strategy={"name": "fedetf", "alternations": 0}).rows[-1]
    assert none["personal/gain"] == 0
    tuned = reference(strategy={"name": "fedetf", "alternations": 5}).rows[-1]
    assert tuned["personal/gain"] > 0
    assert {k: v for k, v in tuned.items() if k[:7] == "generic"} == {
        k: v for k, v in none.items() if k[:7] == "generic"
    }
