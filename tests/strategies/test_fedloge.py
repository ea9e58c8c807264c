"""FedLoGe against its method sheet: what is trained, what travels, and the realigned heads."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional

from fedlt.engines.rehearsal import rehearse
from fedlt.flower.server_half import make_server_half
from fedlt.worker.worker import Worker
from strategies import FedLoGe

PSI, PHI = "heads.auxiliary", "heads.local"


def start(lab, *, cid=1, **changes):
    """Return worker, server and one client before its first round."""
    federation = lab.federation(**{"strategy": "fedloge", **changes})
    worker, server = Worker(federation.shares), make_server_half(federation.view)
    client = worker.client(cid, 1, server.state.broadcast, fixed=server.state.fixed, personal={})
    return worker, server, client


def clones(model):
    return {name: tensor.clone() for name, tensor in model.state().items()}


# ---- training


def test_the_fixed_classifier_is_never_touched(lab, reference):
    worker, server, client = start(lab)
    before = server.state.fixed["heads.sse_c.weight"].clone()
    worker.train(client)
    assert torch.equal(client.model.state()["heads.sse_c.weight"], before)
    fixed = reference(strategy="fedloge").checkpoint.tensors["fixed"]
    assert set(fixed) == {"heads.sse_c.weight"}
    assert torch.equal(fixed["heads.sse_c.weight"], before)


def test_the_classifier_is_one_for_all_seeds_and_workers(lab):
    first = start(lab)[1].state.fixed["heads.sse_c.weight"]
    second = start(lab, seed=2)[1].state.fixed["heads.sse_c.weight"]
    assert torch.equal(first, second)
    zeros = int((first == 0).sum())
    assert zeros == int(0.6 * 4 * 16)
    norms = first.norm(dim=1)
    assert norms.mean().item() == pytest.approx(0.1, abs=0.03)  # 16 features leave it coarse
    units = first / norms[:, None]
    cosines = (units @ units.T)[~torch.eye(4, dtype=torch.bool)]
    assert cosines.tolist() == pytest.approx([-1 / 3] * 12, abs=0.02)


def test_the_heads_send_no_gradient_into_the_backbone(lab):
    """d L_psi / d theta = d L_phi / d theta = 0: the gradient is that of SSE-C alone."""
    _, _, client = start(lab)
    model = client.model.train()
    batch = next(iter(client.plugin.batches(client, 0)))
    FedLoGe().objective(client, batch).backward()
    whole = {n: p.grad.clone() for n, p in model.named_parameters() if n.startswith("backbone.")}
    model.zero_grad()
    logits = model.heads["sse_c"](model.features(batch.images)).squeeze(1)
    functional.cross_entropy(logits, batch.labels).backward()
    for name, parameter in model.named_parameters():
        if name.startswith("backbone."):
            assert torch.equal(whole[name], parameter.grad)
        else:
            assert parameter.grad is None


class BackboneOnly(FedLoGe):
    """The same, trained through SSE-C alone."""

    def objective(self, client, batch):
        features = client.model.features(batch.images)
        return client.plugin.loss(client.model.heads["sse_c"](features), batch, client)


def test_backbone_update_is_the_same_without_the_other_heads(lab):
    worker, server, client = start(lab)
    whole = {n: t.clone() for n, t in worker.train(client).sums.items()}
    client = worker.client(1, 1, server.state.broadcast, fixed=server.state.fixed, personal={})
    alone = BackboneOnly().local_update(client).sums
    for name, tensor in whole.items():
        if name.startswith("backbone."):
            assert torch.equal(alone[name], tensor), name
        else:
            assert not torch.equal(alone[name], tensor), name


@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
def test_one_backward_pass_is_three_steps_in_turn(lab, weight_decay):
    """The sheet's loop by hand: three optimisers with shares of one forward pass, theta first.

    Weight decay acts on theta and psi, and not on phi, whose norms LA-FR reads.
    """
    local = {"epochs": 2, "lr": 0.2, "head_lr": 0.05, "momentum": 0.5, "weight_decay": weight_decay}
    worker, server, client = start(lab, local=local)
    parts = {"backbone.": 0.2, f"{PSI}.": 0.05, f"{PHI}.": 0.05}
    model = client.model.train()
    optimizers = [
        torch.optim.SGD(
            [p for n, p in model.named_parameters() if n.startswith(prefix)],
            lr=lr,
            momentum=0.5,
            weight_decay=0.0 if prefix == f"{PHI}." else weight_decay,
        )
        for prefix, lr in parts.items()
    ]
    for epoch in range(2):
        for batch in client.plugin.batches(client, epoch):
            features = model.features(batch.images).squeeze(1)
            detached = features.detach().clone()
            for head, given, optimizer in zip(
                ("sse_c", "auxiliary", "local"), (features, detached, detached), optimizers,
                strict=True,
            ):  # fmt: skip
                optimizer.zero_grad()
                functional.cross_entropy(model.heads[head](given), batch.labels).backward()
                optimizer.step()
    by_hand = clones(model)
    client = worker.client(1, 1, server.state.broadcast, fixed=server.state.fixed, personal={})
    first = clones(model)
    worker.train(client)
    after = clones(model)
    for name, tensor in by_hand.items():
        torch.testing.assert_close(after[name], tensor, rtol=1e-4, atol=1e-6)
    moved = {name for name in after if not torch.equal(first[name], after[name])}
    assert moved == set(after) - {"heads.sse_c.weight"}


def test_weight_decay_would_show_in_the_local_head(lab):
    """The head of a client that sees no gradient: rows of phi under decay keep their values."""
    strong = {"lr": 0.1, "momentum": 0.0, "weight_decay": 0.5}
    heads = {}
    for decay in (0.0, 0.5):
        worker, _, client = start(lab, local={**strong, "weight_decay": decay, "lr": 1e-4})
        before = client.personal[f"{PHI}.weight"].clone()
        after = worker.train(client).personal[f"{PHI}.weight"].clone()
        heads[decay] = (after - before).norm() / before.norm()
    assert heads[0.5] < 1.1 * heads[0.0]


# ---- what travels


def test_upload_is_backbone_and_auxiliary_head(lab):
    worker, _, client = start(lab)
    update = worker.train(client)
    names = {name for name in update.sums if not name.startswith("backbone.")}
    assert names == {f"{PSI}.weight", f"{PSI}.bias"}
    assert set(update.personal) == {f"{PHI}.weight", f"{PHI}.bias"}


def test_broadcast_costs_what_fedavgs_does(lab, reference):
    sizes = {reference(strategy=name).result["bytes_down"] for name in ("fedavg", "fedloge")}
    assert len(sizes) == 1


def test_local_heads_of_other_clients_do_not_move(lab):
    """Cohorts of 2 of 5: between rounds, only the sampled clients' heads change or appear."""
    states = [
        dict(lab.run(strategy="fedloge", clients_per_round=2, rounds=rounds).personal)
        for rounds in (1, 2, 3)
    ]
    server = start(lab, clients_per_round=2)[1]
    for number, (before, after) in enumerate(pairwise(states), start=2):
        cohort = server.sample(number, list(range(5)))
        for cid in range(5):
            old, new = (t.get(cid) for t in (before, after))
            if cid in cohort:
                assert new is not None
                assert old is None or not torch.equal(old[f"{PHI}.weight"], new[f"{PHI}.weight"])
            elif old is None:
                assert new is None
            else:
                assert torch.equal(old[f"{PHI}.weight"], new[f"{PHI}.weight"])


def test_first_local_heads_are_drawn_one_a_client(lab):
    """U(-1/sqrt(D), 1/sqrt(D)), D = 16: within the bounds, near its standard deviation."""
    heads = [start(lab, cid=cid)[2].personal[f"{PHI}.weight"] for cid in range(5)]
    assert len({head.numpy().tobytes() for head in heads}) == 5
    values = torch.stack(heads)
    assert values.abs().max() <= 0.25
    assert values.std().item() == pytest.approx(0.25 / 3**0.5, rel=0.15)


@pytest.fixture
def wide(tmp_path):
    """A backbone of 512 features without parameters: pixels, as positive as after a ReLU."""
    path = tmp_path / "wide.py"
    path.write_text(
        "from torch import nn\n\n\n"
        "class Wide(nn.Module):\n"
        "    num_features, num_streams = 512, 1\n\n"
        "    def __init__(self, **sizes):\n"
        "        super().__init__()\n"
        "        self.scale = nn.Linear(1, 1)\n\n"
        "    def forward(self, x):\n"
        "        return x.flatten(1).relu().unsqueeze(1) * self.scale.weight.exp() / 10\n"
    )
    return {
        "model": {"name": f"{path}:Wide"},
        "data": {
            "imbalance_factor": 1,
            "options": {"image_size": 16, "channels": 2, "num_classes": 6, "train_per_class": 40},
        },
        "partition": {"scheme": "shards", "shards_per_client": 2},
        "strategy": {"name": "fedloge", "sparsity": 0.0},
        "local": {"weight_decay": 0.5, "epochs": 2, "lr": 0.01},
    }


def test_rows_of_absent_classes_keep_their_first_norm(lab, wide):
    """A row of U(-1/sqrt(D), 1/sqrt(D)) has norm 1/sqrt(3) = 0.577; held classes grow beyond.

    The weight decay of the rest, 0.01 * 0.5 a step and twice that with momentum 0.5, would have
    taken a quarter off the norms in 36 steps.
    """
    worker, server, client = start(lab, **wide)
    held = client.data.class_counts > 0
    assert 0 < int(held.sum()) < 6
    norms = client.personal[f"{PHI}.weight"].norm(dim=1)
    assert norms.tolist() == pytest.approx([0.577] * 6, abs=0.05)
    personal = dict(client.personal)
    for round_ in (1, 2, 3):
        client = worker.client(
            1, round_, server.state.broadcast, fixed=server.state.fixed, personal=personal
        )
        personal = {n: t.clone() for n, t in worker.train(client).personal.items()}
    after = personal[f"{PHI}.weight"].norm(dim=1)
    assert after[~held].tolist() == pytest.approx([0.577] * int((~held).sum()), abs=0.06)
    assert after[held].min() > after[~held].max()


def test_local_head_learns_with_plain_cross_entropy(lab):
    """Under balanced softmax: SSE-C and psi see the prior, phi does not."""
    _, server, client = start(lab, client="balanced_softmax")
    batch = next(iter(client.plugin.batches(client, 0)))
    model = client.model.eval()
    features = model.features(batch.images).squeeze(1)
    prior = client.tensors["log_prior"]
    loss = sum(
        functional.cross_entropy(nn.functional.linear(features, *head) + shift, batch.labels)
        for head, shift in (
            ((server.state.fixed["heads.sse_c.weight"],), prior),
            ((model.heads["auxiliary"].weight, model.heads["auxiliary"].bias), prior),
            ((model.heads["local"].weight, model.heads["local"].bias), 0.0),
        )
    )
    found = server.view.strategy.objective(client, batch)
    assert float(found.detach()) == pytest.approx(float(loss.detach()), rel=1e-5)


# ---- the line at the start


@pytest.mark.parametrize(
    ("lr", "strategy", "is_said"),
    [
        (0.3, {"etf_norm": 1.0}, False),
        (1e-5, {}, True),
        (1e-5, {"etf_scale": 16.0}, False),
    ],
)
def test_a_slow_start_is_said(lab, lr, strategy, is_said):
    changes = {"strategy": {"name": "fedloge", **strategy}, "local": {"lr": lr}}
    _, _, client = start(lab, **changes)
    assert client.model.heads["sse_c"].weight.any()
    line = FedLoGe(**strategy).hint(client)
    assert line.startswith("strategy.etf_norm: at 0.1") == is_said
    assert bool(line) == is_said


def test_the_line_is_shown_when_a_run_starts(lab):
    federation = lab.federation(strategy="fedloge", local={"lr": 1e-5})
    rehearsal = rehearse(federation, make_server_half(federation.view))
    assert any(line.startswith("strategy.etf_norm: at ") for line in rehearsal.notes())
