"""A refusal that names a remedy: what it names is done, and the run is then accepted."""

from __future__ import annotations

import re

import pytest

from fedlt.engines.rehearsal import rehearse
from fedlt.errors import FedltError
from fedlt.flower.server_half import make_server_half
from fedlt.models.etf import angle_variance, sparse_etf

MANY = {"dataset": "synthetic", "options": {"num_classes": 20, "train_per_class": 40}}
TEN = {"dataset": "synthetic", "options": {"num_classes": 10, "train_per_class": 40}}
VIT = {"name": "deit_lt", "width": 16, "depth": 1, "heads": 2, "strong": "distort"}
REFERENCE = {"name": "fedloge_experts", "profile": "reference"}


def accept(lab, changes):
    federation = lab.federation(**changes)
    rehearse(federation, make_server_half(federation.view))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("classes", "sparsity", "width"),
    [(4, 0.6, 38), (10, 0.5, 24), (20, 0.3, 29), (10, 0.8, 150), (40, 0.7, 134)],
)
def test_the_width_that_is_named_has_room(classes, sparsity, width):
    """From C / (1 - s) and 6 / (1 - s)^2 the larger, rounded up: by hand in the table above."""
    with pytest.raises(FedltError, match=f"about {width} at sparsity"):
        sparse_etf(2, classes, sparsity=sparsity, seed=1)
    weight = sparse_etf(width, classes, sparsity=sparsity, seed=1)
    assert angle_variance(weight) < 1


@pytest.mark.parametrize(
    ("changes", "words", "remedy"),
    [
        ({"strategy": "fedbn", "model": {"norm": "group"}}, "take model.norm: batch",
         {"model": {"norm": "batch"}}),
        ({"strategy": "fedbn", "model": {"name": "mlp", "norm": "group"}}, "an MLP",
         {"model": {"name": "mlp", "norm": "batch"}}),
        ({"strategy": "fedloge", "client": "mdcs"}, "take fedloge_experts",
         {"strategy": "fedloge_experts"}),
        ({"strategy": REFERENCE, "client": "mdcs"}, "take profile: paper",
         {"strategy": {**REFERENCE, "profile": "paper"}}),
        ({"strategy": "fedloge", "client": VIT}, "set strategy.etf_scale, such as 16",
         {"strategy": {"name": "fedloge", "etf_scale": 16.0}}),
        ({"model": {"name": "mlp"}, "client": "mdcs"}, "take model.name cnn or a resnet",
         {"model": {"name": "cnn"}}),
        ({"strategy": "fedloge", "data": TEN}, "32 features work (model.width)",
         {"model": {"width": 8}}),
        ({"strategy": "fedloge", "data": TEN}, "lower the sparsity (strategy.sparsity): at 0",
         {"strategy": {"name": "fedloge", "sparsity": 0.0}}),
    ],
)  # fmt: skip
def test_it_works(lab, changes, words, remedy):
    with pytest.raises(FedltError, match=re.escape(words)):
        accept(lab, changes)
    accept(lab, {**changes, **remedy})


def test_a_backbone_with_fewer_features_than_classes(lab):
    """A CNN of width 4 has 16 features, 20 classes need 20 / (1 - .6) = 50: 4 times, 64."""
    changes = {"strategy": "fedloge", "data": MANY, "model": {"width": 4}}
    with pytest.raises(FedltError, match=r"got 16 features, fewer than the 20 classes") as refusal:
        accept(lab, changes)
    assert "take a backbone 4 times as wide (model.width), which has 64" in str(refusal.value)
    accept(lab, {**changes, "model": {"width": 16}})


def test_what_is_said_at_a_thousand_classes():
    """ResNet-18 has 512 features: 1000 at sparsity 0, 1000 / .4 = 2500 at .6, 5 x 512 = 2560."""
    with pytest.raises(FedltError, match=r"about 2500 at sparsity 0.6: .* 5 times .* 2560$"):
        sparse_etf(512, 1000, seed=1)
