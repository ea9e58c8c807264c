"""Clients of one image: BatchNorm has no variance there, and what fedlt does about it."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from built_in import BUILT_IN
from torch import nn
from torch.func import functional_call, vmap

from fedlt.data import Partition
from fedlt.errors import FedltError
from fedlt.models.batchnorm import accept_single_values, single_value_layers
from fedlt.progress import Progress
from fedlt.simulate import run

IMAGES = torch.tensor([[[[0.5]], [[-2.0]], [[3.0]]]])  # (1, 3, 1, 1): one value a channel


def norm(**options) -> nn.Module:
    """Return a BatchNorm whose statistics and weights are not those it begins with."""
    layer = nn.BatchNorm2d(3, **options)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.0, 2.0, -1.0]))
        layer.bias.copy_(torch.tensor([0.0, 0.5, 1.0]))
        layer.running_mean.copy_(torch.tensor([0.1, -1.0, 2.0]))
        layer.running_var.copy_(torch.tensor([1.0, 4.0, 0.25]))
    return layer


def test_one_value_a_channel_is_normalised_by_the_running_statistics():
    """y = w (x - m) / sqrt(v + eps) + b, dy/dx = w / sqrt(v + eps), dy/dw = (x - m) / sqrt(...).

    By hand with eps 0: (0.5 - 0.1) / 1 = 0.4; 2 (-2 + 1) / 2 + 0.5 = -0.5; -(3 - 2) / 0.5 + 1 = -1.
    """
    layer = norm(eps=1e-12).double()
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        copy.deepcopy(layer)(IMAGES.double())
    accept_single_values(layer)
    before = {name: buffer.clone() for name, buffer in layer.named_buffers()}
    images = IMAGES.double().requires_grad_()
    out = layer(images)
    out.sum().backward()
    torch.testing.assert_close(out.flatten(), torch.tensor([0.4, -0.5, -1.0]).double())
    torch.testing.assert_close(images.grad.flatten(), torch.tensor([1.0, 1.0, -2.0]).double())
    torch.testing.assert_close(layer.weight.grad, torch.tensor([0.4, -0.5, 2.0]).double())
    assert all(torch.equal(before[name], buffer) for name, buffer in layer.named_buffers())
    assert layer.training


def test_more_values_are_normalised_as_ever():
    """Batches of two, and one image of several pixels, keep their bits and move the statistics."""
    plain, patched = norm(), norm()
    accept_single_values(patched)
    for images in (torch.randn(2, 3, 1, 1), torch.randn(1, 3, 2, 1)):
        assert torch.equal(plain(images), patched(images))
    assert torch.equal(plain.running_var, patched.running_var)
    patched.eval()
    patched(IMAGES)
    assert not patched.training


def test_an_error_inside_leaves_the_mode_alone():
    layer = norm()
    accept_single_values(layer)
    with pytest.raises(RuntimeError):
        layer(torch.zeros(1, 7, 1, 1))  # seven channels, where it has three
    assert layer.training


def test_stacked_rows_do_the_same():
    """vmap over two clients with a single image each: every row is that client's alone."""
    layer = norm()
    accept_single_values(layer)
    rows = {n: torch.stack([t, 2 * t]) for n, t in layer.state_dict().items() if t.ndim}
    images = torch.stack([IMAGES, IMAGES + 1])
    stacked = vmap(lambda tensors, x: functional_call(layer, tensors, (x,)))(rows, images)
    for client in (0, 1):
        own = {name: tensor[client] for name, tensor in rows.items()}
        torch.testing.assert_close(stacked[client], functional_call(layer, own, (images[client],)))


def test_layers_are_found_where_one_image_gives_one_value():
    """8 x 8 pixels, then 4, 2, 1: of two norms the second sees a single pixel."""
    model = nn.Sequential(
        nn.Conv2d(1, 3, 4, stride=4), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 2), nn.BatchNorm2d(3)
    )
    assert single_value_layers(model, torch.zeros(1, 1, 8, 8)) == ["3"]
    assert model.training


# ---- whole runs


def alone(lab, tmp_path, *, clients=(0, 2)):
    """Return the setting of a saved partition in which some clients hold one image each."""
    labels = lab.federation().observer.data.train_labels
    rest = [cid for cid in range(5) if cid not in clients]
    owner = np.resize(rest, len(labels))
    owner[np.arange(len(clients)) * 7] = clients
    partition = Partition.from_owner(owner, labels, num_clients=5, num_classes=4)
    path = tmp_path / "partition.json"
    partition.save(path)
    return {"partition": {"file": str(path)}, "clients_per_round": None, "rounds": 2}


class Notes(Progress):
    def __init__(self):
        self.lines = []

    def note(self, line):
        self.lines.append(line)


METHODS = (
    "fedavg", "scaffold", "ditto", "fedavg_ft", "fedbn", "fedrep", "fedproto", "fednh", "creff",
    "fedala", "apfl", "pfedme", "fedavg+ldam_drw", "fedavg+fedyoyo", "fedavg+infobatch",
    "fedavg+mixup", "FedAdam",
)  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_methods_train_clients_of_one_image(lab, tmp_path, method):
    """Under the perceptron, whose BatchNorm sees one value a unit of one image."""
    if method == "FedAdam":
        changes = {"strategy": "flwr.serverapp.strategy:FedAdam"}
    else:
        changes = BUILT_IN[method]
    config = lab.fresh(**changes, model={"name": "mlp", "width": 8}, **alone(lab, tmp_path))
    notes = Notes()
    assert run(config, progress=notes)["status"] == "finished"
    assert any(line.startswith("2 of 5 clients hold a single image") for line in notes.lines)


@pytest.mark.parametrize(
    "changes",
    [
        {"strategy": "fedloge_experts", "client": "mdcs"},
        {"personal": {"refresh": {"epochs": 1, "scope": "all"}}, "strategy": "ditto"},
        {"engine": {"name": "stacked"}},
        {"batchnorm": "local"},
        {"batchnorm": "pooled"},
        {"local": {"optimizer": "adamw", "sam_rho": 0.05}},
    ],
    ids=str,
)
def test_settings_train_clients_of_one_image(lab, tmp_path, changes):
    """ResNet-18 on 8 x 8 images: its last stage is one pixel."""
    model = {"name": "resnet18", "width": 2}
    outcome = lab.run(**changes, model=model, **alone(lab, tmp_path))
    assert outcome.result["status"] == "finished"


def test_a_network_that_needs_no_variance_says_nothing(lab, tmp_path):
    notes = Notes()
    run(lab.fresh(model={"name": "mlp", "norm": "group"}, **alone(lab, tmp_path)), progress=notes)
    run(lab.fresh(**alone(lab, tmp_path)), progress=notes)  # cnn: several pixels up to the end
    assert not any("single image" in line for line in notes.lines)


def test_batches_of_one_image_only_are_refused(lab):
    config = lab.fresh(model={"name": "mlp"}, local={"batch_size": 1})
    with pytest.raises(FedltError, match=r"local\.batch_size=2 or more, or model\.norm=group"):
        run(config)
    assert not lab.output.exists()


def test_a_method_that_cannot_take_one_image_is_refused_before_round_1(lab, tmp_path):
    path = tmp_path / "pairs.py"
    path.write_text(
        "from dataclasses import dataclass\n"
        "from fedlt.client import ClientPlugin\n\n\n"
        "@dataclass(frozen=True)\n"
        "class Pairs(ClientPlugin):\n"
        "    def loss(self, logits, batch, client):\n"
        "        if len(batch.labels) < 2:\n"
        "            raise ValueError('needs pairs')\n"
        "        return super().loss(logits, batch, client)\n"
    )
    config = lab.fresh(client=f"{path}:Pairs", **alone(lab, tmp_path))
    with pytest.raises(FedltError, match=r"client 0 holds a single .*needs pairs.*min_samples=2"):
        run(config)
    assert not lab.output.exists()
