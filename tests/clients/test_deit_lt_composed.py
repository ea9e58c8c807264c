"""DeiT-LT with data plugins and with strategies: what composes, and what is refused."""

from __future__ import annotations

import pytest
import torch
from tiers import WITH_TIMM

from fedlt.client import Batch
from fedlt.errors import FedltError
from fedlt.flower.server_half import make_server_half
from fedlt.methods.taught import mix_batch
from fedlt.worker.worker import Worker

pytestmark = WITH_TIMM

TINY = {"name": "deit_lt", "width": 16, "depth": 1, "heads": 2, "strong": "distort"}


def client_of(lab, *, cid=1, round_=1, options=None, **changes):
    changes = {"rounds": 10, "client": {**TINY, **(options or {})}, **changes}
    federation = lab.federation(**changes)
    server, worker = make_server_half(federation.view), Worker(federation.shares)
    state, counts = server.state, server.prior_counts([0])
    settings = {"fixed": state.fixed, "personal": {}, "global_counts": counts}
    return worker.client(cid, round_, state.broadcast, **settings)


# ---- with other plugins and strategies


def test_a_mixture_is_the_clients_own_where_both_images_are():
    batch = Batch(torch.zeros(4, 1, 2, 2), torch.arange(4), {"own": torch.tensor([1.0, 1, 0, 1])})
    draws = torch.Generator().manual_seed(0)
    rule = {"mixup": 0.8, "cutmix": 1.0, "smoothing": 0.0}
    mixed = mix_batch(batch, batch.images, 4, draws, **rule)
    assert mixed.extra["own"].tolist() == [1, 1, 0, 0]
    plain = mix_batch(batch, batch.images, 4, draws, **dict.fromkeys(rule, 0.0))
    assert plain.extra["own"].tolist() == [1, 1, 0, 1]


def test_a_data_plugin_draws_for_the_student_only(lab):
    """The teacher learns from the client's own images in their own order."""
    client = {"name": "class_balanced_sampling", "loss": TINY}
    balanced, plain = client_of(lab, client=client), client_of(lab)
    found, wanted = (c.plugin.train_networks(c) for c in (balanced, plain))
    assert found["teacher_loss"] == wanted["teacher_loss"]
    labels = [torch.cat([b.labels for b in c.batches(1)]) for c in (balanced, plain)]
    assert not torch.equal(*labels)


@pytest.mark.parametrize("name", ["balancefl", "fedntd", "fedproto"])
def test_losses_on_one_label_for_an_image_refuse_it(lab, name):
    with pytest.raises(FedltError, match="the client weighs or mixes images"):
        lab.federation(strategy=name, client=TINY)


@pytest.mark.parametrize("name", ["ccvr", "creff", "fedbabu"])
def test_strategies_that_read_one_head_refuse_it(lab, name):
    with pytest.raises(FedltError, match="the client makes one for every stream"):
        lab.federation(strategy=name, client=TINY)


def test_fedloge_for_experts_is_fedloge(reference):
    settings = {"client": TINY, "rounds": 2}
    runs = [
        reference(strategy={"name": name, "etf_scale": 16.0}, **settings)
        for name in ("fedloge", "fedloge_experts")
    ]
    assert runs[0].bits == runs[1].bits


# ---- with FedLoGe


def test_fedloge_wants_a_scaled_classifier(lab):
    with pytest.raises(FedltError, match=r"'deit_lt': its features have norm .*etf_scale"):
        lab.federation(strategy="fedloge", client=TINY)
    strategy = {"name": "fedloge", "etf_scale": 16.0, "sparsity": 0.0}
    federation = lab.federation(strategy=strategy, client=TINY)
    state = make_server_half(federation.view).state
    norms = state.fixed["heads.sse_c.weight"].norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(4))
    model = federation.view.build_model()
    model.load(state.fixed, state.fixed)
    features = torch.randn(3, 2, 16)
    cosine = torch.cosine_similarity(
        features.unsqueeze(2), state.fixed["heads.sse_c.weight"], dim=-1
    )
    torch.testing.assert_close(model.heads["sse_c"](features), 16 * cosine)


def test_fedloge_realigns_each_tokens_head(lab):
    strategy = {"name": "fedloge", "etf_scale": 16.0}
    federation = lab.federation(strategy=strategy, client=TINY)
    state, worker = make_server_half(federation.view).state, Worker(federation.shares)
    client = worker.client(1, 1, state.broadcast, fixed=state.fixed, personal={})
    psi, bias = (state.broadcast[f"heads.auxiliary.{part}"] for part in ("weight", "bias"))
    phi = client.personal["heads.local.weight"]
    assert psi.shape == phi.shape == (2, 4, 16)
    features = torch.randn(3, 2, 16)
    generic = federation.view.strategy.generic(client.model, state.broadcast)["realigned"](features)
    own = federation.view.strategy.personal(client.model, state.broadcast, client.personal)
    for token in range(2):
        unit = psi[token] / psi[token].norm(dim=1, keepdim=True)
        torch.testing.assert_close(generic[:, token], features[:, token] @ unit.T + bias[token])
        v1 = psi[token] * phi[token].norm(dim=1, keepdim=True)
        found = own["realigned_v1"](features)[:, token]
        torch.testing.assert_close(found, features[:, token] @ v1.T + bias[token])
