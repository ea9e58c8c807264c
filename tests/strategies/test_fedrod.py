"""FedROD: its shared part is FedAvg with balanced softmax, and its personal head by hand."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from fedlt.flower.server_half import make_server_half
from fedlt.worker.worker import Worker
from strategies import FedROD

LOCAL = {"local": {"momentum": 0.5, "weight_decay": 0.01, "epochs": 2}}


def start(lab, **changes):
    federation = lab.federation(strategy="fedrod", **changes)
    worker, server = Worker(federation.shares), make_server_half(federation.view)
    client = worker.client(1, 1, server.state.broadcast, fixed={}, personal={})
    return worker, server, client


@pytest.mark.parametrize("use", ["local_masked", "local_floor1", "global"])
def test_shared_part_is_fedavg_with_balanced_softmax_bit_for_bit(reference, use):
    prior = {"use": use, "source": "oracle" if use == "global" else "own"}
    ours = reference(strategy="fedrod", prior=prior, **LOCAL)
    plain = reference(strategy="fedavg", client="balanced_softmax", prior=prior, **LOCAL)
    assert ours.groups["broadcast"].keys() == plain.groups["broadcast"].keys()
    for name, tensor in plain.groups["broadcast"].items():
        assert torch.equal(ours.groups["broadcast"][name], tensor), name
    generic = [{k: v for k, v in row.items() if k[:7] == "generic"} for row in ours.rows]
    assert all(row[key] == other[key] for row, other in zip(plain.rows, generic, strict=True)
               for key in other)  # fmt: skip
    assert ours.result["bytes_down"] == plain.result["bytes_down"]
    assert ours.result["generic_model"] == "shared"


def test_a_plugin_with_a_loss_of_its_own_takes_the_generic_heads_place(lab, tmp_path):
    path = tmp_path / "doubled.py"
    path.write_text(
        "from dataclasses import dataclass\n\n"
        "from fedlt.client import ClientPlugin\n\n\n"
        "@dataclass(frozen=True)\n"
        "class Doubled(ClientPlugin):\n"
        "    def loss(self, logits, batch, client):\n"
        "        return 2 * super().loss(logits, batch, client)\n"
    )
    ours = lab.run(strategy="fedrod", client=f"{path}:Doubled").groups["broadcast"]
    plain = lab.run(strategy="fedavg", client=f"{path}:Doubled").groups["broadcast"]
    assert all(torch.equal(ours[name], tensor) for name, tensor in plain.items())


def test_personal_gradient_by_hand_and_nothing_else_feels_it(lab):
    """d CE(g + h) / d h = softmax(g + h) - onehot, so dW = mean of that times f^T.

    The generic parameters have the gradient of balanced softmax alone.
    """
    _, _, client = start(lab)
    batch = next(client.batches(1))
    model = client.model.eval()
    FedROD().objective(client, batch).backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters()}
    with torch.no_grad():
        features = model.features(batch.images).squeeze(1)
        logits = model.heads["head"](features) + model.heads["personal"](features)
        error = logits.softmax(1) - functional.one_hot(batch.labels, 4)
    expected = error.T @ features / len(features)
    torch.testing.assert_close(found["heads.personal.weight"], expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found["heads.personal.bias"], error.mean(0), rtol=1e-4, atol=1e-6)
    model.zero_grad()
    shifted = model(batch.images).squeeze(1) + client.tensors["log_prior"]
    functional.cross_entropy(shifted, batch.labels).backward()
    for name, parameter in model.named_parameters():
        if not name.startswith("heads.personal."):
            assert torch.equal(found[name], parameter.grad), name


def test_views_and_what_travels(lab):
    worker, server, client = start(lab)
    update = worker.train(client)
    assert set(update.personal) == {"heads.personal.weight", "heads.personal.bias"}
    assert not [name for name in update.sums if "personal" in name]
    model, features = client.model.eval(), torch.randn(5, 1, 16)
    heads = FedROD().personal(model, server.state.broadcast, update.personal)
    assert list(heads) == ["sum", "personal"]
    both = heads["personal"](features) + FedROD().generic(model, {})["head"](features)
    assert torch.equal(heads["sum"](features), both)
