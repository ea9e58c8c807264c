"""Backbones of timm, of torchvision and of a user: sizes, streams, determinism, mistakes."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torchvision
from torch import nn

from fedlt.errors import FedltError
from fedlt.models import LinearHead, build_backbone, build_model, make_experts

TIMM = "timm:test_resnet"
MINE = """
import torch
from torch import nn

class Flat(nn.Module):  # features (B, D), and no attributes
    def __init__(self, in_channels, image_size, width=None, norm="batch"):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(in_channels * image_size**2, 6))
    def forward(self, x):
        return self.body(x)

class Two(Flat):
    def forward(self, x):
        return self.body(x).view(-1, 2, 3)

class Maps(Flat):
    def forward(self, x):
        return x

class Wrong(Flat):
    num_features = 7

def any_shape(image_shape, hidden=4):
    return nn.Sequential(nn.Flatten(), nn.Linear(image_shape[1] * image_shape[2], hidden))

def nothing():
    return 5
"""


def make(name, shape=(1, 8, 8), **options):
    return build_backbone(name, image_shape=shape, **options)


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    source = tmp_path_factory.mktemp("mine") / "mine.py"
    source.write_text(MINE)
    return str(source)


def test_timm_gives_its_pooled_features():
    timm = pytest.importorskip("timm")
    backbone = make(TIMM).eval()
    theirs = timm.create_model("test_resnet", num_classes=0, in_chans=1).eval()
    theirs.load_state_dict(backbone.state_dict())
    images = torch.rand(3, 1, 8, 8)
    assert (backbone.num_streams, backbone.num_features) == (1, 96)
    assert torch.equal(backbone(images), theirs(images)[:, None])


def test_torchvision_gives_the_features_before_its_classifier():
    backbone = make("torchvision:resnet18", (3, 8, 12)).eval()
    theirs = torchvision.models.resnet18(weights=None).eval()
    theirs.fc = nn.Identity()
    theirs.load_state_dict(backbone.state_dict())
    images = torch.rand(2, 3, 8, 12)
    assert torch.equal(backbone(images), theirs(images)[:, None])


def test_weights_depend_on_the_seed_only():
    pytest.importorskip("timm")

    def draw(seed):
        torch.rand(3)
        model = build_model(TIMM, image_shape=(1, 8, 8), num_classes=3, seed=seed)
        model.add_head("head", LinearHead(model.num_features, 3))
        return torch.cat([p.flatten() for p in model.parameters()])

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


def test_group_norm_replaces_plain_batch_norm():
    kinds = {type(module) for module in make("torchvision:resnet18", norm="group").modules()}
    assert nn.GroupNorm in kinds
    assert nn.BatchNorm2d not in kinds


@pytest.mark.parametrize(("name", "sizes"), [("Flat", (1, 6)), ("Two", (2, 3))])
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda b: b])
def test_a_users_network_may_leave_out_its_sizes(mine, name, sizes, copied):
    backbone = copied(make(f"{mine}:{name}"))
    images = torch.rand(4, 1, 8, 8)
    assert (backbone.num_streams, backbone.num_features) == sizes
    assert torch.equal(backbone(images), backbone.body(images).view(4, *sizes))


def test_features_of_one_stream_survive_pickling():
    pytest.importorskip("timm")
    backbone = make(TIMM).eval()
    images = torch.rand(2, 1, 8, 8)
    assert torch.equal(pickle.loads(pickle.dumps(backbone))(images), backbone(images))


def test_a_trial_pass_leaves_the_random_state(mine):
    torch.manual_seed(3)
    built, after = make(f"{mine}:Flat"), torch.get_rng_state()
    torch.manual_seed(3)
    plain = nn.Linear(64, 6)
    assert torch.equal(built.body[1].weight, plain.weight)
    assert torch.equal(after, torch.get_rng_state())


def test_a_users_network_gets_the_shape_and_the_options(mine):
    backbone = make(f"{mine}:any_shape", (1, 4, 6), options={"hidden": 5})
    assert backbone(torch.rand(2, 1, 4, 6)).shape == (2, 1, 5)


def test_identity_passes_features_on():
    features = torch.rand(3, 7, 1, 1)
    assert torch.equal(make("identity", (7, 1, 1))(features), features.view(3, 1, 7))


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("Maps", {}, r"must return features \(B, D\), or \(B, S, D\).* returns \(2, 1, 8, 8\)"),
        ("Wrong", {}, r"says num_features = 7, and returns \(2, 6\) for 2 images"),
        ("nothing", {}, "must return a torch module, not a int"),
        ("any_shape", {"options": {"hiden": 3}}, "no option 'hiden'; nearest: 'hidden'"),
        ("Flat", {"shape": (1, 8, 6)}, "the images are 8 x 6; give it a parameter image_shape"),
        ("Flat", {"shape": (1, 8, 8), "depth": 2}, "model.depth: is for mlp"),
    ],
)
def test_mistakes_of_a_users_network_are_named(mine, name, options, reason):
    with pytest.raises(FedltError, match=reason):
        make(f"{mine}:{name}", **options)


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("timm:resnet19", {}, "timm has no network 'resnet19'.*nearest: 'resnet18'"),
        (TIMM, {"options": {"pretrained": True}}, "pretrained would download weights"),
        (TIMM, {"options": {"foo": 1}}, "cannot be made: .*'foo'"),
        (TIMM, {"options": {"in_chans": 1}}, "in_chans follows from the data"),
        (TIMM, {"width": 8}, "has the width of its name"),
        ("timm:hf-hub:a/b", {}, "timm has no network 'hf-hub:a/b'"),
        ("torchvision:resnet1", {}, "nearest: 'resnet18'"),
        ("torchvision:vgg11", {}, r"fails on images of 1 x 8 x 8 .*too small"),
        ("torchvision:resnet18", {"norm": "none"}, r"takes batch .* or group, not none"),
        ("identity", {"width": 4}, "identity has no layers"),
        ("cnn", {"options": {"a": 1}}, "'a' is no option of cnn"),
    ],
)
def test_mistakes_of_a_librarys_network_are_named(name, options, reason):
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    with pytest.raises(FedltError, match=reason):
        make(name, **options)


def test_a_foreign_network_is_not_split(mine):
    with pytest.raises(FedltError, match="Flat cannot be split into experts: derive it from"):
        make_experts(make(f"{mine}:Flat"), count=2, width=1.0, own_stages=1)


@pytest.mark.parametrize(
    ("name", "depths"), [("resnet10", (1, 1, 1, 1)), ("resnet50", (3, 4, 6, 3))]
)
def test_imagenet_networks_agree_with_torchvision(name, depths):
    """Our tensors lie in torchvision's order: its own network gives the same features."""
    kinds = torchvision.models.resnet
    theirs = kinds.ResNet(kinds.BasicBlock if name == "resnet10" else kinds.Bottleneck, depths)
    theirs.fc = nn.Identity()
    ours = make(name, (3, 32, 32)).eval()
    names = list(theirs.state_dict())
    theirs.load_state_dict(dict(zip(names, ours.state_dict().values(), strict=True)))
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(ours(images)[:, 0], theirs.eval()(images), rtol=1e-4, atol=1e-4)
