"""Experts as streams: published sizes, what is shared and what is not, heads by stream."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from fedlt.errors import FedltError
from fedlt.models import (
    CosineHead,
    Experts,
    LinearHead,
    StreamHead,
    build_backbone,
    build_model,
    make_experts,
)
from fedlt.models.layers import Backbone


def experts(name="cnn", *, size=8, width=None, channels=1, own_stages=2, norm="batch"):
    backbone = build_backbone(name, image_shape=(channels, size, size), width=width, norm=norm)
    return make_experts(backbone, count=3, width=0.75, own_stages=own_stages)


def size_of(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_parameter_counts_of_the_papers_network():
    """ResNet-32, 100 classes: 23,824 shared, 248,544 + 4,800 an expert, 783,856 in all.

    By hand: stem 432 + 32, five blocks of 2 * (2304 + 32); an expert of 24 and 48 channels has
    16 * 24 * 9 + 24 * 24 * 9 + 4 * (24 * 24 * 18) + 5 * 96 and 24 * 48 * 9 + 48 * 48 * 9 +
    4 * (48 * 48 * 18) + 5 * 192.
    """
    model = build_model("resnet32", image_shape=(3, 32, 32), num_classes=100, seed=1)
    model.backbone = make_experts(model.backbone, count=3, width=0.75, own_stages=2)
    model.use_cosine_heads(30.0, by_stream=True)
    model.add_head("head", LinearHead(model.num_features, 100))
    assert size_of(model.backbone.shared) == 432 + 32 + 5 * 2 * (2304 + 32) == 23_824
    first = 16 * 24 * 9 + 24 * 24 * 9 + 4 * (24 * 24 * 18) + 5 * 96
    second = 24 * 48 * 9 + 48 * 48 * 9 + 4 * (48 * 48 * 18) + 5 * 192
    assert [size_of(branch) for branch in model.backbone.branches] == [first + second] * 3
    assert first + second == 248_544
    assert size_of(model) == 783_856


@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize(("name", "factor"), [("cnn", 3), ("resnet8", 3), ("resnet18", 6)])
def test_streams_are_the_branches_in_order(name, factor, norm):
    backbone = experts(name, width=4, norm=norm).eval()
    assert (backbone.num_streams, backbone.num_features) == (3, factor * 4)
    images = torch.rand(2, 1, 8, 8)
    features = backbone(images)
    maps = backbone.shared(images)
    for k in range(3):
        torch.testing.assert_close(features[:, k], backbone.branches[k](maps)[:, 0])
    assert not torch.equal(features[:, 0], features[:, 1])


@pytest.mark.parametrize("own_stages", [1, 2])
@pytest.mark.parametrize("name", ["cnn", "resnet8"])
def test_whole_width_experts_are_the_network_itself(name, own_stages):
    """With the network's own last blocks in every branch, every stream has its features."""
    whole = build_backbone(name, image_shape=(1, 8, 8), width=4).eval()
    images = torch.rand(2, 1, 8, 8)
    expected = whole(images)
    split = make_experts(whole, count=2, width=1.0, own_stages=own_stages).eval()
    values = list(whole.state_dict().values())
    for branch in split.branches:
        own = branch.state_dict()
        branch.load_state_dict(dict(zip(own, values[-len(own) :], strict=True)))
    assert size_of(split.shared) + size_of(split.branches[0]) == size_of(whole)
    torch.testing.assert_close(split(images), expected.expand(-1, 2, -1))


def test_an_experts_gradient_stays_in_its_branch():
    backbone = experts()
    backbone(torch.rand(2, 1, 8, 8))[:, 1].sum().backward()
    touched = [
        any(bool(p.grad.ne(0).any()) for p in branch.parameters()) for branch in backbone.branches
    ]
    assert touched == [False, True, False]
    assert all(bool(p.grad.ne(0).any()) for p in backbone.shared.parameters())


def test_folded_experts_share_one_whole_network():
    backbone = experts("resnet8", width=4)
    folded = backbone.folded().eval()
    assert (folded.num_streams, folded.num_features) == (3, 16)
    assert size_of(folded) == size_of(build_backbone("resnet8", image_shape=(1, 8, 8), width=4))
    assert folded.shared is backbone.shared
    features = folded(torch.rand(2, 1, 8, 8))
    assert torch.equal(features[:, 0], features[:, 2])


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda b: pickle.loads(pickle.dumps(b))])
def test_copies_are_equal(copied):
    backbone, images = experts().eval(), torch.rand(2, 1, 8, 8)
    assert torch.equal(copied(backbone)(images), backbone(images))


class Unsplit(Backbone):
    num_features = 3


@pytest.mark.parametrize(
    ("backbone", "reason"),
    [
        (build_backbone("mlp", image_shape=(1, 8, 8), width=4), "mlp .* layers are not cut"),
        (Unsplit(), r"Unsplit .* has no split\(\)"),
        (nn.Linear(3, 3), "Linear .* derive it from fedlt.models.layers.Backbone"),
    ],
)
def test_what_cannot_be_split_is_refused(backbone, reason):
    with pytest.raises(FedltError, match=reason):
        make_experts(backbone, count=3, width=1.0, own_stages=1)


@pytest.mark.parametrize("name", ["cnn", "resnet8"])
@pytest.mark.parametrize("own_stages", [0, 3])
def test_some_stages_are_shared_and_some_are_not(name, own_stages):
    with pytest.raises(FedltError, match=f"experts can own 1 to 2, not {own_stages}"):
        experts(name, own_stages=own_stages)


# ---- heads by stream


def test_cosine_heads_by_stream_by_hand():
    """Each stream's logits are those of a head of its own; in [-scale, scale]."""
    head, features = CosineHead(4, 5, 7.0, num_streams=3), torch.randn(6, 3, 4)
    torch.testing.assert_close(head.weight.norm(dim=-1), torch.ones(3, 5))
    logits = head(features)
    for k in range(3):
        for c in range(5):
            cosine = torch.cosine_similarity(features[:, k], head.weight[k, c][None], dim=-1)
            torch.testing.assert_close(logits[:, k, c], 7 * cosine)
    assert logits.abs().max() <= 7.0001
    torch.testing.assert_close(head(100 * features), logits)


def test_linear_heads_by_stream_by_hand():
    head, features = StreamHead(3, 4, 5), torch.randn(6, 3, 4)
    assert head.weight.abs().max() <= 0.5  # 1 / sqrt(4)
    for k in range(3):
        expected = features[:, k] @ head.weight[k].T + head.bias[k]
        torch.testing.assert_close(head(features)[:, k], expected)


def test_linear_heads_become_cosine_heads_by_stream():
    model = build_model("cnn", image_shape=(1, 8, 8), num_classes=4, seed=1)
    model.backbone = make_experts(model.backbone, count=3, width=0.75, own_stages=2)
    model.use_cosine_heads(12.0, by_stream=True)
    model.add_head("head", LinearHead(model.num_features, 4), group="personal")
    model.add_head("plain", StreamHead(3, model.num_features, 4))
    assert isinstance(model.backbone, Experts)
    assert isinstance(model.heads["head"], CosineHead)
    assert model.shapes()["heads.head.weight"] == (3, 4, 48)
    assert model.group_of("heads.head.weight") == "personal"
    assert isinstance(model.heads["plain"], StreamHead)
    assert model(torch.rand(2, 1, 8, 8)).shape == (2, 3, 4)
