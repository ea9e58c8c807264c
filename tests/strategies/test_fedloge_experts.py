"""FedLoGe with experts: both mappings, gradients, and realigned heads by hand."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from fedlt.check import Bench
from fedlt.errors import FedltError
from fedlt.models.etf import dense_etf
from fedlt.simulate import run
from strategies import STRATEGIES

MAPPINGS = ("aux_experts", "streams")
mappings = pytest.mark.parametrize("mapping", MAPPINGS)
IID = {"scheme": "iid"}


def settings(mapping, **changes):
    strategy = {"name": "fedloge_experts", "mapping": mapping}
    if mapping == "streams":
        strategy["sparsity"] = 0.3  # 12 features are too few for 0.6
    return {"strategy": strategy, "client": "mdcs", "partition": IID, **changes}


def started(lab, mapping, **changes):
    bench = Bench(lab.federation(**settings(mapping, **changes)))
    return bench, bench.client(1)


def cosines(features, vectors):
    """Return cos (B, S, C) of every stream with its own class vectors (S, C, D), one by one."""
    columns = [
        torch.cosine_similarity(features[:, k, None], vectors[k][None], dim=-1)
        for k in range(features.shape[1])
    ]
    return torch.stack(columns, dim=1)


@mappings
def test_where_the_experts_live(lab, mapping):
    """Width 4: a whole network has 16 features, an expert of three quarters 12."""
    _, client = started(lab, mapping)
    model, shapes = client.model, client.model.shapes()
    branches, features = {"aux_experts": (1, 16), "streams": (3, 12)}[mapping]
    assert len(model.backbone.branches) == branches
    assert shapes["heads.auxiliary.weight"] == (3, 4, features)
    assert shapes["heads.local.weight"] == (3, 4, features)
    assert shapes["heads.sse_c.weight"] == (4, features)
    assert model.group_of("heads.local.bias") == "personal"
    assert model.group_of("heads.sse_c.weight") == "fixed"
    assert "heads.auxiliary.bias" not in shapes


def by_hand(client, batch, mapping):
    """Return the three losses: the formulas of the docs, with the plugin's own loss."""
    model, plugin = client.model, client.plugin
    features = model.features(batch.images)
    etf, psi = model.heads["sse_c"].weight, model.heads["auxiliary"].weight
    if mapping == "aux_experts":
        taught = (features[:, 0] @ etf.T)[:, None]
    else:
        taught = 30 * cosines(features, etf.expand(3, -1, -1))
    stopped = features.detach()
    phi, bias = model.heads["local"].weight, model.heads["local"].bias
    own = torch.stack([stopped[:, k] @ phi[k].T + bias[k] for k in range(3)], dim=1)
    rows = own.flatten(0, 1), batch.labels.repeat_interleave(3)
    return (
        plugin.loss(taught, batch, client),
        plugin.loss(30 * cosines(stopped, psi), batch, client),
        functional.cross_entropy(*rows),
    )


@mappings
def test_the_objective_by_hand_and_who_learns_from_what(lab, mapping):
    bench, client = started(lab, mapping)
    model, strategy = client.model.train(), bench.worker.shares.strategy
    batch = next(client.batches(1))
    losses = by_hand(client, batch, mapping)
    torch.testing.assert_close(strategy.objective(client, batch), sum(losses), rtol=1e-5, atol=0)
    for loss, owner in zip(losses, ("backbone.", "heads.auxiliary.", "heads.local."), strict=True):
        model.zero_grad()
        loss.backward()
        moved = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
        assert moved
        assert all(name.startswith(owner) for name in moved)


def test_a_whole_backbone_learns_without_the_experts_offsets(lab):
    """Through SSE-C: plain cross-entropy and, in the last round, 0.6 of the self-distillation."""
    _, client = started(lab, "aux_experts")
    client.tensors["expert_offsets"] = torch.full((3, 4), float("nan"))
    batch = next(client.batches(1))
    loss = by_hand(client, batch, "aux_experts")[0]
    assert bool(torch.isfinite(loss))


@mappings
def test_realigned_heads_by_hand(lab, mapping):
    """GA: 30 cos(f_k, psi_k,c). LA: that times |phi_k,c|; V2 adds phi_k f_k + b. Then the mean."""
    bench, client = started(lab, mapping)
    strategy, model = bench.worker.shares.strategy, client.model.eval()
    with torch.no_grad():
        model.heads["auxiliary"].weight.mul_(torch.rand(3, 4, 1) + 0.5)
        broadcast = {n: model.state()[n].clone() for n in model.names("shared")}
        features = model.features(next(client.batches(1)).images)
        generic = strategy.generic(model, broadcast)
        personal = strategy.personal(model, broadcast, client.personal)
        assert next(iter(generic)) == "realigned"
        assert next(iter(personal)) == "realigned_v1"
        psi, phi = broadcast["heads.auxiliary.weight"], client.personal["heads.local.weight"]
        global_ = 30 * cosines(features, psi)
        local = torch.einsum("bsd,scd->bsc", features, phi) + client.personal["heads.local.bias"]
        expected = {
            "realigned_v1": global_ * phi.norm(dim=-1),
            "realigned_v2": global_ * phi.norm(dim=-1) + local,
            "local": local,
            "auxiliary": global_,
        }
        for name, logits in expected.items():
            torch.testing.assert_close(personal[name](features), logits, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(generic["realigned"](features), global_, rtol=1e-4, atol=1e-4)
        fused = client.plugin.predict(generic["realigned"](features))
        torch.testing.assert_close(fused, global_.mean(dim=1), rtol=1e-4, atol=1e-4)


def test_streams_meet_a_scaled_unit_norm_frame(lab):
    """A feature that is a class vector has the logit 30 there and 30 / (1 - C) elsewhere."""
    _, client = started(lab, "streams")
    head = client.model.heads["sse_c"]
    frame = dense_etf(12, 4, torch.Generator().manual_seed(0))
    head.weight.copy_(0.1 * frame)
    logits = head(5 * frame[:, None])[:, 0]
    expected = torch.full((4, 4), -10.0).fill_diagonal_(30.0)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-3)


def test_local_heads_are_drawn_by_client(lab):
    """Uniform on (-1/sqrt(D), 1/sqrt(D)) as FedLoGe's own, D = 16."""
    bench = Bench(lab.federation(**settings("aux_experts")))
    drawn = [bench.client(cid).personal["heads.local.weight"].clone() for cid in (1, 2)]
    assert not torch.equal(*drawn)
    assert all(0.24 < weight.abs().max() <= 0.25 for weight in drawn)


@mappings
def test_the_mapping_is_said(lab, mapping):
    notes = []

    class Listener:
        def __getattr__(self, name):
            return notes.append if name == "note" else lambda *_, **__: None

    run(lab.fresh(**settings(mapping, rounds=1)), progress=Listener())
    assert f"fedloge_experts: mapping {mapping}" in notes


@pytest.mark.parametrize(
    ("strategy", "client", "reason"),
    [
        ("fedloge", "mdcs", "cosine heads of them; take fedloge_experts"),
        ("fedloge_experts", "ldam_drw", "cosine heads of them$"),
        ({"name": "fedloge_experts", "profile": "reference"}, "mdcs", "knows no experts"),
        ("ccvr", "mdcs", "the strategy needs linear heads, the client makes cosine heads of them$"),
    ],
)
def test_what_does_not_go_together_is_refused(lab, strategy, client, reason):
    with pytest.raises(FedltError, match=reason):
        lab.federation(strategy=strategy, client=client)
    assert STRATEGIES["fedloge"].traits.with_experts in STRATEGIES
