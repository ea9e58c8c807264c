"""The transformer with two tokens: its sizes, its streams, heads of their own, and fusion."""

from __future__ import annotations

import sys

import pytest
import torch
from tiers import WITH_TIMM
from torch import nn

from fedlt.errors import FedltError
from fedlt.models import LinearHead, Model, StreamHead
from fedlt.models.heads import FixedHead
from fedlt.models.vit import DistilledViT, fuse, patch_side


@WITH_TIMM
def test_the_published_network_has_its_number_of_parameters():
    """ViT-B/16 with two tokens and two heads of 10 classes: 85,815,572."""
    with torch.device("meta"):
        vit = DistilledViT((3, 224, 224), patch=16, width=768, depth=12, heads=12, mlp_ratio=4.0)
    head = StreamHead(2, 768, 10)
    assert sum(p.numel() for p in [*vit.parameters(), *head.parameters()]) == 85_815_572
    assert vit.vit.pos_embed.shape == (1, 14 * 14 + 2, 768)


@WITH_TIMM
@pytest.mark.parametrize(
    ("side", "patch", "tokens"), [(8, 2, 18), (28, 4, 51), (32, 4, 66), (2, 2, 3), (13, 13, 3)]
)
def test_it_is_sized_to_the_image(side, patch, tokens):
    assert patch_side(side, side) == patch
    vit = DistilledViT((1, side, side), width=8, depth=1, heads=2)
    assert vit.vit.pos_embed.shape == (1, tokens, 8)
    assert vit(torch.zeros(3, 1, side, side)).shape == (3, 2, 8)


@WITH_TIMM
def test_the_streams_are_cls_and_dist():
    """Only the token itself reads its own starting value directly: the streams differ by it."""
    vit = DistilledViT((1, 8, 8), width=8, depth=0, heads=2).eval()
    images = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    before = vit(images)
    with torch.no_grad():
        vit.vit.dist_token += torch.arange(8.0)
    after = vit(images)
    assert torch.equal(before[:, 0], after[:, 0])
    assert not torch.allclose(before[:, 1], after[:, 1])
    torch.testing.assert_close(before.norm(dim=-1), torch.full((2, 2), 8**0.5), rtol=1e-2, atol=0)


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"patch": 3}, "patch: 3 does not divide"), ({"heads": 3}, "heads: 3 does not divide")],
)
def test_sizes_that_do_not_fit(options, reason):
    with pytest.raises(FedltError, match=reason):
        DistilledViT((1, 8, 8), **{"width": 8, "heads": 2, **options})


def test_without_timm_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm.models.deit", None)
    with pytest.raises(FedltError, match=r"needs timm .*pip install 'fedlt\[vit\]'"):
        DistilledViT((1, 8, 8), width=8, heads=2)


# ---- heads


def test_a_stream_head_is_a_linear_head_for_every_stream():
    head, features = StreamHead(2, 5, 3), torch.randn(4, 2, 5)
    for stream in range(2):
        expected = features[:, stream] @ head.weight[stream].T + head.bias[stream]
        torch.testing.assert_close(head(features)[:, stream], expected)


def test_swapped_weights_swap_the_streams():
    head, same = StreamHead(2, 5, 3), torch.randn(4, 1, 5).expand(-1, 2, -1)
    before = head(same)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(parameter.flip(0))
    torch.testing.assert_close(head(same), before.flip(1))


class Two(nn.Module):
    num_features, num_streams = 5, 2


def test_a_model_makes_heads_of_streams_where_it_is_told():
    model = Model(Two(), 3)
    model.add_head("one", LinearHead(5, 3))
    model.use_stream_heads()
    model.add_head("each", LinearHead(5, 3))
    assert type(model.heads["one"]) is LinearHead
    assert model.heads["each"].weight.shape == (2, 3, 5)
    assert model.group_of("heads.each.weight") == "shared"


def test_a_scaled_fixed_head_reads_directions():
    """16 times the cosine where the class vectors have norm 1, however long the features are."""
    weight = torch.eye(3, 5)
    head, features = FixedHead(weight, scale=16.0), torch.randn(4, 2, 5)
    cosine = torch.cosine_similarity(features.unsqueeze(2), weight, dim=-1)
    torch.testing.assert_close(head(features), 16 * cosine)
    torch.testing.assert_close(head(7 * features), head(features))
    with pytest.raises(FedltError, match="scale must be above 0"):
        FixedHead(weight, scale=0.0)


# ---- fusion


def test_fusion_of_two_tokens():
    logits = torch.tensor([[[2.0, 0.0], [0.0, 4.0]]])
    assert fuse(logits, "logits").tolist() == [[1.0, 2.0]]
    assert fuse(logits, "cls").tolist() == [[2.0, 0.0]]
    assert fuse(logits, "dist").tolist() == [[0.0, 4.0]]
    mean = logits.softmax(-1).mean(1)
    torch.testing.assert_close(fuse(logits, "probs").softmax(-1), mean)
    torch.testing.assert_close(fuse(logits, "probs"), mean.log())


# ---- networks of a plugin's own


def test_a_network_has_groups_and_no_gradient():
    model = Model(Two(), 3)
    model.add_network("teacher", nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), group="shared")
    names = [f"networks.teacher.{n}" for n in ("0.weight", "0.bias", "1.weight", "1.bias")]
    assert list(model.parameter_names("shared")) == names
    assert not any(p.requires_grad for p in model.parameters())
    assert not model.networks["teacher"].training
    with pytest.raises(FedltError, match="network name 'teacher' must be a new identifier"):
        model.add_network("teacher", nn.Linear(1, 1), group="fixed")


def test_images_that_are_not_square_are_cut_into_squares():
    """8 x 12 pixels in patches of 2: 4 x 6 patches and two tokens."""
    vit = DistilledViT((1, 8, 12), width=8, depth=1, heads=2)
    assert patch_side(8, 12) == 2
    assert vit.vit.pos_embed.shape[1] == 4 * 6 + 2
    assert vit(torch.rand(3, 1, 8, 12)).shape == (3, 2, 8)
    with pytest.raises(FedltError, match="images of 7 x 12 do not divide so"):
        patch_side(7, 12)
    with pytest.raises(FedltError, match="patch: 3 does not divide the image side 8"):
        DistilledViT((1, 12, 8), patch=3, width=8, heads=2)
