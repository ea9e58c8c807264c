"""Weights: names matched on both sides, torchvision's layout, frozen parts, mistakes."""

from __future__ import annotations

import copy

import pytest
import safetensors.torch
import torch
import torchvision
from torch import nn

from fedlt.errors import FedltError
from fedlt.models import LinearHead, Model, build_backbone, build_model
from fedlt.models.freezing import freeze
from fedlt.models.modes import set_training_modes
from fedlt.models.weights import StartWeights, as_array, match, read_state_dict


def small(seed=1, name="cnn"):
    model = build_model(name, image_shape=(1, 8, 8), num_classes=3, width=2, seed=seed)
    model.add_head("head", LinearHead(model.num_features, 3))
    return model


@pytest.mark.parametrize("name", ["resnet10", "resnet50"])
def test_torchvisions_state_dict_gives_torchvisions_outputs(name):
    """Random numbers in torchvision's own names, and its own module's outputs, to 1e-5."""
    kinds, torch_state = torchvision.models.resnet, torch.Generator().manual_seed(5)
    depths = {"resnet10": (1, 1, 1, 1), "resnet50": (3, 4, 6, 3)}[name]
    theirs = kinds.ResNet(kinds.BasicBlock if name == "resnet10" else kinds.Bottleneck, depths)
    for key, tensor in theirs.state_dict().items():
        if tensor.is_floating_point():
            noise = 0.1 * torch.randn(tensor.shape, generator=torch_state)
            tensor.copy_(noise.abs() + 0.5 if key.endswith("running_var") else noise)
    ours = build_backbone(name, image_shape=(3, 32, 32))
    found = match(theirs.state_dict(), ours.state_dict())
    assert found.unused == ("fc.weight", "fc.bias")
    assert not found.misfits
    assert set(found.tensors) == set(ours.state_dict())
    ours.load_state_dict(found.tensors)
    theirs.fc = nn.Identity()
    images = torch.rand(2, 3, 32, 32)
    expected = theirs.eval()(images)
    assert expected.abs().max() > 0.01
    torch.testing.assert_close(ours.eval()(images)[:, 0], expected, rtol=1e-5, atol=1e-5)


def test_the_cifar_resnet_takes_what_fits():
    theirs = torchvision.models.resnet18(weights=None).state_dict()
    ours = build_backbone("resnet18", image_shape=(3, 8, 8))
    found = match(theirs, ours.state_dict())
    assert list(found.misfits) == ["stem.0.weight"]
    assert set(found.tensors) == set(ours.state_dict()) - {"stem.0.weight"}


@pytest.mark.parametrize(
    ("there", "here"),
    [("", ""), ("module.", ""), ("module.backbone.", ""), ("", "net."), ("model.", "net.body.")],
)
def test_common_beginnings_are_taken_off_either_side(there, here):
    tensors = small().backbone.state_dict()
    given = {f"{there}{name}": tensor + 1 for name, tensor in tensors.items()}
    found = match(
        {**given, "fc.weight": torch.zeros(3, 8)}, {f"{here}{n}": t for n, t in tensors.items()}
    )
    assert found.unused == ("fc.weight",)
    assert all(torch.equal(found.tensors[f"{here}{n}"], t + 1) for n, t in tensors.items())


def test_other_kinds_and_shapes_do_not_fit():
    wanted = {"a.weight": torch.zeros(2, 3), "a.bias": torch.zeros(2)}
    found = match(
        {"a.weight": torch.ones(2, 4), "a.bias": torch.ones(2, dtype=torch.int64)}, wanted
    )
    assert not found.tensors
    found = match({"a.weight": torch.ones(2, 4), "a.bias": torch.ones(2)}, wanted)
    assert set(found.tensors) == {"a.bias"}
    assert set(found.misfits) == {"a.weight"}


def test_a_bias_does_not_come_without_its_weight():
    """The two heads' biases have the same shape; their weights have not."""
    model, other = small(), small(seed=2)
    whole = {name: as_array(t) for name, t in other.state().items()}
    whole["heads.head.weight"] = whole["heads.head.weight"][:, :2]
    start, before = StartWeights({}, whole), model.heads["head"].bias.detach().clone()
    start.fill_rest(model, set())
    assert torch.equal(model.heads["head"].bias, before)
    assert "backbone.layers.0.weight" in model.filled
    assert not [name for name in model.filled if name.startswith("heads.")]
    size = model.num_features
    words = [f"heads.head.weight (3, 2) for (3, {size})"]
    assert start.head_misfits(model) == {"heads.head": words}


def test_a_head_without_its_bias_is_not_taken():
    model = small()
    whole = {name: as_array(t) for name, t in small(seed=2).state().items() if "bias" not in name}
    assert StartWeights({}, whole).head_misfits(model) == {
        "heads.head": ["heads.head.bias nothing for (3,)"]
    }


@pytest.mark.parametrize("wrap", [lambda t: t, lambda t: {"epoch": 3, "state_dict": t}])
def test_files_of_torch_and_safetensors(tmp_path, wrap):
    tensors = small().backbone.state_dict()
    torch.save(wrap(tensors), tmp_path / "w.pt")
    safetensors.torch.save_file(tensors, tmp_path / "w.safetensors")
    for name in ("w.pt", "w.safetensors"):
        found = read_state_dict(tmp_path / name)
        assert all(torch.equal(found[n], t) for n, t in tensors.items())


def test_files_that_hold_no_weights_are_one_line(tmp_path):
    torch.save(small().backbone, tmp_path / "module.pt")
    torch.save({"epoch": 3}, tmp_path / "numbers.pt")
    (tmp_path / "text.safetensors").write_text("hello")
    for name, reason in (
        ("module.pt", "holds more than tensors"),
        ("numbers.pt", "holds no named tensors"),
        ("text.safetensors", "cannot be read"),
        ("nothing.pt", "no file"),
    ):
        with pytest.raises(FedltError, match=reason) as caught:
            read_state_dict(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_a_frozen_part_is_fixed_and_evaluates():
    model = small()
    freeze(model, ("layers.0", "layers.2"))  # the first convolution, and its norm
    frozen = ["backbone.layers.0.weight", "backbone.layers.2.weight", "backbone.layers.2.bias"]
    assert [n for n in model.names("fixed") if n in frozen] == frozen
    before = {n: t.clone() for n, t in model.state().items()}
    trained = tuple(n for n, p in model.named_parameters() if p.requires_grad)
    assert not set(trained) & set(frozen)
    for one in (model, copy.deepcopy(model)):
        set_training_modes(one, trained)
        modes = [layer.training for layer in one.backbone.layers]
        assert modes == [False, True, False, *[True] * (len(modes) - 3)]
        one(torch.rand(4, 1, 8, 8))
        moved = {n for n, t in one.state().items() if not torch.equal(t, before[n])}
        assert "backbone.layers.6.running_mean" in moved
        assert not moved & set(model.names("fixed"))


@pytest.mark.parametrize(
    ("prefixes", "reason"),
    [
        (("layer.0",), "nothing in the backbone lies under 'layer.0'; nearest: 'layers.0'"),
        (("",), "nothing in the backbone lies under ''"),
        (("layers.0.weigh",), "nearest: 'layers"),
    ],
)
def test_a_wrong_prefix_gets_the_nearest(prefixes, reason):
    with pytest.raises(FedltError, match=reason):
        freeze(small(), prefixes)


def test_features_have_nothing_to_freeze():
    model = Model(build_backbone("identity", image_shape=(5, 1, 1)), 3)
    with pytest.raises(FedltError, match="no weights that could be frozen"):
        freeze(model, "all")
