"""The share of variance in a few directions: by hand, against scikit-learn's PCA, and in runs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from report_pages import parse, table
from sklearn.decomposition import PCA
from tiers import WITH_TIMM
from torch import nn

from fedlt.cli import main
from fedlt.data.augment import normalize
from fedlt.errors import FedltError
from fedlt.evaluation.rank import DIRECTIONS, rank_metrics, variance_shares
from fedlt.models.layers import Backbone
from fedlt.models.vit import DistilledViT

CLIENT = {"name": "deit_lt", "width": 16, "depth": 2, "heads": 2, "strong": "distort"}


def test_shares_by_hand():
    """Points at 3, 2 and 1 from the origin along three axes, both ways: variances as 9 : 4 : 1."""
    axes = torch.diag(torch.tensor([1.0, 3.0, 2.0]))
    shares = variance_shares(torch.cat([axes, -axes]) + 7, (1, 2, 3, 10))
    assert shares == pytest.approx([9 / 14, 13 / 14, 1.0, 1.0])


def test_features_on_a_line_have_rank_one():
    line = torch.linspace(-1, 1, 9)[:, None] * torch.tensor([[1.0, 2.0, -3.0, 0.5]])
    assert variance_shares(line, (1, 5)) == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize("features", [torch.full((5, 3), 0.1), torch.full((5, 3), math.nan)])
def test_what_has_no_variance_has_no_shares(features):
    assert variance_shares(features, (1, 2)) == [None, None]


@pytest.mark.parametrize("shape", [(200, 12), (7, 30), (30, 30)])
def test_shares_are_scikit_learns(shape):
    """Directions of falling lengths, off centre; more images than features, and fewer."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=shape) @ np.diag(0.8 ** np.arange(shape[1])) + rng.normal(
        size=shape[1]
    )
    ratio = PCA(svd_solver="full").fit(features).explained_variance_ratio_.cumsum()
    expected = [ratio[min(d, len(ratio)) - 1] for d in (1, 3, 5, 100)]
    assert variance_shares(torch.tensor(features), (1, 3, 5, 100)) == pytest.approx(expected)


def test_names_of_blocks_and_streams():
    features = torch.randn(20, 2, 2, 3, generator=torch.Generator().manual_seed(0))
    found = rank_metrics(features, ("cls", "dist"))
    assert len(found) == 2 * 2 * len(DIRECTIONS)
    expected = variance_shares(features[:, 1, 0])
    assert [found[f"block_2/cls/variance_{d}"] for d in DIRECTIONS] == expected
    assert set(rank_metrics(features[:, :1, :1], ())) == {
        f"block_1/features/variance_{d}" for d in DIRECTIONS
    }


@WITH_TIMM
def test_block_features_are_the_blocks_outputs():
    """The network's parts called one after another; the last block, normalised, is the output."""
    torch.manual_seed(0)
    network = DistilledViT((1, 8, 8), width=16, depth=3, heads=2).eval()
    images = torch.randn(4, 1, 8, 8)
    with torch.no_grad():
        found = network.block_features(images)
        tokens = network.vit._pos_embed(network.vit.patch_embed(images))
        for number, block in enumerate(network.vit.blocks):
            tokens = block(tokens)
            torch.testing.assert_close(found[:, number], tokens[:, :2])
        torch.testing.assert_close(network.vit.norm(found[:, -1]), network(images))
    assert found.shape == (4, 3, 2, 16)
    assert not any(block._forward_hooks for block in network.vit.blocks)


def test_other_backbones_have_no_blocks():
    with pytest.raises(FedltError, match="backbone Backbone has no block_features"):
        Backbone().block_features(torch.zeros(1, 1, 8, 8))


class Stack(nn.Module):
    """A network of a user's own with two blocks and a single stream."""

    num_features, num_streams, num_blocks = 6, 1, 2

    def __init__(self, **_):
        super().__init__()
        self.first, self.second = nn.Linear(64, 6), nn.Linear(6, 6)

    def forward(self, x):
        return self.block_features(x)[:, -1]

    def block_features(self, x):
        first = self.first(x[:, 0].flatten(1)).relu()
        return torch.stack([first, self.second(first).relu()], dim=1)[:, :, None]


def by_pca(lab, outcome, changes):
    """Return scikit-learn's shares for the last checkpoint, from all training images."""
    federation = lab.federation(**changes)
    model, data = federation.view.build_model(), federation.observer.data
    model.load(outcome.checkpoint.tensors["broadcast"], model.names("shared"))
    scale = [torch.tensor(value, dtype=torch.float32) for value in (data.mean, data.std)]
    images = normalize(torch.from_numpy(np.array(data.train_images)), *scale)
    with torch.no_grad():
        features = model.eval().backbone.block_features(images).numpy()
    _, blocks, streams, _ = features.shape
    return {
        (b, s): PCA(svd_solver="full").fit(features[:, b, s]).explained_variance_ratio_.cumsum()
        for b in range(blocks)
        for s in range(streams)
    }


CASES = {
    "deit_lt": ({"client": CLIENT}, ("cls", "dist")),
    "a network of the user's own": ({"model": {"name": f"{__file__}:Stack"}}, ("features",)),
}


@pytest.mark.parametrize(
    "case", [pytest.param(name, marks=WITH_TIMM if name == "deit_lt" else ()) for name in CASES]
)
def test_a_run_has_the_shares_and_the_same_bits(lab, case):
    """Two blocks; all training images: none of the four classes has more than 40."""
    changes, names = CASES[case]
    changes = {**changes, "rounds": 2}
    plain = lab.run(**changes)
    looked = lab.run(**changes, diagnostics={"every": 2, "clients": 1})
    assert (
        looked.checkpoint.tensors["broadcast"].keys()
        == plain.checkpoint.tensors["broadcast"].keys()
    )
    for name, tensor in plain.checkpoint.tensors["broadcast"].items():
        assert torch.equal(tensor, looked.checkpoint.tensors["broadcast"][name])
    row = looked.rows[-1]
    for (block, stream), ratio in by_pca(lab, looked, changes).items():
        for d in DIRECTIONS:
            found = row[f"diagnostics/block_{block + 1}/{names[stream]}/variance_{d}"]
            assert found == pytest.approx(ratio[min(d, len(ratio)) - 1], abs=1e-5)
    assert not [name for name in looked.result["best_on_test"] if "variance" in name]


def test_a_convolutional_network_has_none(lab):
    row = lab.run(rounds=1, diagnostics={"every": 1, "clients": 1}).rows[-1]
    assert "diagnostics/nc1" in row
    assert not [name for name in row if "block_" in name]


@WITH_TIMM
def test_the_report_shows_them_by_block(lab, tmp_path):
    for seed in (1, 2):
        lab.run(
            name="deit", seed=seed, client=CLIENT, rounds=2, diagnostics={"every": 1, "clients": 1}
        )
    path = tmp_path / "report.html"
    assert main(["report", str(lab.output / "deit"), "--output", str(path)]) == 0
    headings, rows = table(parse(path), "Variance by block")
    assert headings == ["method", "stream", "block", "first %", "first 5 %", "first 10 %"]
    assert [row[:3] for row in rows] == [
        ["deit", stream, block] for stream in ("cls", "dist") for block in "12"
    ]
    assert all(0 < row[3] <= row[4] <= row[5] <= 1 for row in rows)
