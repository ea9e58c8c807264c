"""DeiT-LT: who trains the teacher, what it sees, what the two tokens learn, and since when."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiers import WITH_TIMM
from torch.nn import functional

from clients import DeitLT
from fedlt.client import Batch
from fedlt.errors import FedltError
from fedlt.flower.server_half import make_server_half
from fedlt.methods.taught import rate_factor
from fedlt.methods.teacher import Teacher
from fedlt.worker.worker import Worker
from strategies import FedAvg

pytestmark = WITH_TIMM

TINY = {"name": "deit_lt", "width": 16, "depth": 1, "heads": 2, "strong": "distort"}
PLAIN = {"mixup": 0.0, "cutmix": 0.0, "smoothing": 0.0, "strong": "none"}
SHARDS = {"scheme": "shards", "shards_per_client": 1}  # clients of one class
ORACLE = {"use": "global", "source": "oracle"}


def client_of(lab, *, cid=1, round_=1, options=None, **changes):
    changes = {"rounds": 10, "client": {**TINY, **(options or {})}, **changes}
    federation = lab.federation(**changes)
    server, worker = make_server_half(federation.view), Worker(federation.shares)
    state, counts = server.state, server.prior_counts([0])
    settings = {"fixed": state.fixed, "personal": {}, "global_counts": counts}
    return worker.client(cid, round_, state.broadcast, **settings)


def logits_of(count=20, classes=4):
    return torch.randn(count, 2, classes, generator=torch.Generator().manual_seed(0))


def taught_batch(count=20, classes=4):
    draws = torch.Generator().manual_seed(1)
    targets = torch.rand(count, classes, generator=draws).softmax(-1)
    taught = torch.randint(0, classes, (count,), generator=draws)
    return Batch(torch.zeros(count, 1, 8, 8), taught, {"targets": targets, "taught": taught})


# ---- the teacher


def test_the_teacher_answers_to_the_very_tensor_of_the_student(lab, monkeypatch):
    client = client_of(lab, round_=5)
    seen, features = [], client.model.features
    answer = Teacher.forward

    def spied(teacher, images):
        assert not teacher.training
        assert not torch.is_grad_enabled()
        seen.append(images)
        return answer(teacher, images)

    def student(images):
        assert images is seen[-1]
        assert not client.model.networks["teacher"].training
        return features(images)

    monkeypatch.setattr(Teacher, "forward", spied)
    monkeypatch.setattr(client.model, "features", student)
    before = client.snapshot()
    metrics = client.train(FedAvg().objective)
    assert len(seen) == metrics["steps"]
    for name, value in client.model.state().items():
        is_teacher = name.startswith("networks.")
        assert is_teacher == torch.equal(value, before[name]) or value.dtype == torch.int64


def test_the_teacher_learns_by_ldam_and_sam(lab):
    """A loop by hand: margins 15 (n_min / n)^(1/4), gradient at w + rho g / |g|, step from w."""
    options = {"teacher_rho": 0.3, "teacher_lr": 0.07}
    local = {"lr": 0.2, "momentum": 0.0, "weight_decay": 0.1, "batch_size": 100}
    client = client_of(lab, options=options, local=local, model={"norm": "group"})
    other = client_of(lab, options=options, local=local, model={"norm": "group"})
    client.plugin.train_networks(client)
    teacher = other.model.networks["teacher"].requires_grad_(True)
    parameters = list(teacher.parameters())
    (batch,) = super(DeitLT, other.plugin).batches(other, 0)
    counts = other.data.class_counts.double()
    margins = 15 * (counts[counts > 0].min() / counts.clamp(min=1)) ** 0.25
    margins[counts == 0] = 15

    def slopes():
        lost = functional.one_hot(batch.labels, 4) * margins
        loss = functional.cross_entropy(teacher(batch.images) - lost.float(), batch.labels)
        return torch.autograd.grad(loss, parameters)

    start = [p.detach().clone() for p in parameters]
    first = slopes()
    norm = torch.cat([g.flatten() for g in first]).norm()
    with torch.no_grad():
        for p, g in zip(parameters, first, strict=True):
            p += 0.3 * g / norm
    moved = torch.cat([(p - s).flatten() for p, s in zip(parameters, start, strict=True)])
    assert moved.norm().item() == pytest.approx(0.3, rel=1e-4)
    second = slopes()
    trained = dict(client.model.networks["teacher"].named_parameters())
    for (name, p), s, g in zip(trained.items(), start, second, strict=True):
        torch.testing.assert_close(p.detach(), s - 0.07 * g, msg=name)
    body = client.snapshot()
    assert all(torch.equal(t, body[n]) for n, t in other.broadcast.items() if "teacher" not in n)


@pytest.mark.parametrize(
    ("start", "round_", "is_late"),
    [({}, 8, False), ({}, 9, True), ({"teacher_drw_start": 0.3}, 3, False),
     ({"teacher_drw_start": 0.3}, 4, True)],
)  # fmt: skip
@pytest.mark.parametrize("loss", ["ldam", "ce"])
def test_the_teacher_divides_by_the_weights_in_the_batch(lab, start, round_, is_late, loss):
    """From round 0.8 x 10 on: PyTorch's own mean with ``weight=``, on a batch of one class too."""
    options = {"teacher_loss": loss, **start}
    client = client_of(lab, round_=round_, prior=ORACLE, options=options)
    counts = client.tensors["known_counts"].double()
    weights = ((1 - 0.9999) / (1 - 0.9999**counts)).float() if is_late else torch.ones(4)
    assert (weights.unique().numel() > 1) == is_late
    (batch, *_) = super(DeitLT, client.plugin).batches(client, 0)
    for labels in (batch.labels, torch.full_like(batch.labels, 2)):
        batch = replace(batch, labels=labels)
        client.model.networks["teacher"].eval()
        logits = client.model.networks["teacher"](batch.images)
        margin = 15 * (counts.min() / counts) ** 0.25 if loss == "ldam" else torch.zeros(4)
        lost = functional.one_hot(labels, 4) * margin.float()
        expected = functional.cross_entropy(logits - lost, labels, weight=weights)
        found = client.plugin.teaching(client, batch)
        assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_teachers_rate_by_the_round():
    """Cosine: cos(pi/4)^2 after a quarter of the rounds, and 1/2 after half of them.

    Step, 200 rounds as the recipe has 200 epochs: growth over 5, 0.01 after 160, 0.0001 after 180.
    """
    cosine = [rate_factor("cosine", round_, 200) for round_ in (1, 51, 101, 151)]
    assert cosine == pytest.approx([1.0, (2 + 2**0.5) / 4, 0.5, (2 - 2**0.5) / 4])
    step = [rate_factor("step", round_, 200) for round_ in (1, 5, 6, 160, 161, 180, 181, 200)]
    assert step == pytest.approx([0.2, 1.0, 1.0, 1.0, 0.01, 0.01, 1e-4, 1e-4])
    assert {rate_factor("constant", round_, 7) for round_ in range(1, 8)} == {1.0}
    assert rate_factor("cosine", 1, 1) == rate_factor("step", 1, 1) == 1.0


@pytest.mark.parametrize(("schedule", "factor"), [("cosine", 0.5), ("constant", 1.0)])
def test_the_teacher_steps_with_that_rate(lab, schedule, factor):
    """Plain SGD, one batch, half of ten rounds over: w moves by rate times the gradient."""
    options = {"teacher_rho": 0.0, "teacher_lr": 0.08, "teacher_schedule": schedule}
    local = {"lr": 0.2, "momentum": 0.0, "batch_size": 100}
    given = {"options": options, "local": local, "model": {"norm": "group"}, "round_": 6}
    client, other = client_of(lab, **given), client_of(lab, **given)
    client.plugin.train_networks(client)
    teacher = other.model.networks["teacher"].requires_grad_(True)
    (batch,) = super(DeitLT, other.plugin).batches(other, 0)
    (slope,) = torch.autograd.grad(other.plugin.teaching(other, batch), teacher.head.weight)
    moved = client.model.networks["teacher"].head.weight - teacher.head.weight
    torch.testing.assert_close(moved.detach(), -0.08 * factor * slope, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("strategy", ["fedprox", "ditto", "fedrep", "fedrod"])
def test_whatever_trains_the_student_the_teacher_learns_the_same(reference, strategy):
    """In the first round: FedProx does not hold it back, Ditto's own model does not replace it."""
    settings = {"client": TINY, "rounds": 1}
    if strategy == "fedprox":
        strategy = {"name": strategy, "mu": 2.0}
    found = reference(strategy=strategy, **settings).checkpoint.tensors["broadcast"]
    wanted = reference(**settings).checkpoint.tensors["broadcast"]
    teacher = [name for name in wanted if name.startswith("networks.teacher.")]
    assert teacher
    assert all(torch.equal(found[name], wanted[name]) for name in teacher)


def test_where_the_teachers_live(reference, lab):
    common = reference(client=TINY)
    own = reference(client={**TINY, "teacher": "local"})
    none = reference(client={**TINY, "teacher": "none"})
    names = [n for n in common.checkpoint.tensors["broadcast"] if n.startswith("networks.")]
    assert names
    assert not [n for n in own.checkpoint.tensors["broadcast"] if n.startswith("networks.")]
    weight = "networks.teacher.head.weight"
    kept = [state[weight] for state in own.personal.values() if state]
    assert len(kept) > 1
    assert not torch.equal(kept[0], kept[1])
    assert own.result["generic_model"] == "shared"
    everything = {n for group in none.groups.values() for n in group}
    assert not [name for name in everything if name.startswith("networks.")]
    assert {"train/agreement", "train/teacher_loss"} <= set(common.rows[-1])
    assert 0 <= common.rows[-1]["train/agreement"] <= 1


def test_a_pretrained_teacher_is_a_finished_run(lab, reference):
    first = reference(client="ldam_drw")
    weights = str(first.directory.path)
    client = {**TINY, "teacher": "pretrained_federated", "weights_path": weights}
    outcome = lab.run(client=client, rounds=1)
    fixed, sent = outcome.checkpoint.tensors["fixed"], first.checkpoint.tensors["broadcast"]
    assert torch.equal(fixed["networks.teacher.head.weight"], sent["heads.head.weight"])
    for name, value in sent.items():
        if name.startswith("backbone."):
            assert torch.equal(fixed[f"networks.teacher.{name}"], value)
    assert not [n for n in outcome.checkpoint.tensors["broadcast"] if n.startswith("networks.")]
    assert "train/teacher_loss" not in outcome.rows[-1]


def test_weights_that_cannot_be_had(lab, reference, tmp_path):
    def refused(reason, **options):
        with pytest.raises(FedltError, match=reason) as caught:
            make_server_half(lab.federation(client={**TINY, **options}).view)
        assert "\n" not in str(caught.value)

    pretrained = {"teacher": "pretrained_federated"}
    refused("weights_path: teacher pretrained_federated, and no other, needs", **pretrained)
    refused("weights_path: teacher pretrained_federated, and no other", weights_path="somewhere")
    refused(
        "weights_path: no run with a checkpoint lies in", **pretrained, weights_path=str(tmp_path)
    )
    linear = str(reference(client="cross_entropy").directory.path)
    refused("does not fit the teacher.*'head.bias'", **pretrained, weights_path=linear)
    fits = {**TINY, **pretrained, "weights_path": linear, "teacher_loss": "ce"}
    with pytest.raises(FedltError, match=r"differ in 'backbone\.layers\.0\.weight'"):
        make_server_half(lab.federation(client=fits, model={"width": 3}).view)
    make_server_half(lab.federation(client=fits).view)


# ---- the losses


@pytest.mark.parametrize(("round_", "is_late"), [(2, False), (9, False), (10, True)])
def test_the_loss_by_hand(lab, round_, is_late):
    """Half of each token's; from round 0.9 x 10 on the classes of the teacher are weighed."""
    client = client_of(lab, round_=round_, prior=ORACLE)
    logits, batch = logits_of(), taught_batch()
    log_p = logits.log_softmax(-1).double()
    labelled = -(batch.extra["targets"] * log_p[:, 0]).sum(-1).mean()
    taught = batch.extra["taught"]
    each = -log_p[torch.arange(20), 1, taught]
    counts = client.tensors["known_counts"].double()
    raw = (1 - 0.9999) / (1 - 0.9999**counts)
    own = (raw / raw.mean())[taught] if is_late else torch.ones(20)
    expected = 0.5 * labelled + 0.5 * (own * each).sum() / own.sum()
    found = client.plugin.loss(logits, batch, client)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_small_batches_keep_their_weights(lab):
    """Under 16 images the mean weight of the data divides: sum_c pi_c w_c, not the batch's own."""
    client = client_of(lab, round_=10, prior=ORACLE, options={"alpha": 1.0})
    logits, batch = logits_of(1), taught_batch(1)
    counts = client.tensors["known_counts"].double()
    weights = 1 / (1 - 0.9999**counts)
    mean = (counts * weights).sum() / counts.sum()
    taught = batch.extra["taught"]
    plain = functional.cross_entropy(logits[:, 1], taught)
    found = client.plugin.loss(logits, batch, client)
    torch.testing.assert_close(found.double(), plain * (weights[taught] / mean).squeeze().double())
    by_batch = replace(client.plugin, drw_norm="batch").loss(logits, batch, client)
    torch.testing.assert_close(by_batch, plain)


@pytest.mark.parametrize(("options", "round_", "silent"), [
    ({"alpha": 0.0}, 5, 1), ({"alpha": 1.0}, 5, 0), ({}, 1, 1), ({"warmup": 0.5}, 5, 1),
])  # fmt: skip
def test_tokens_that_learn_nothing(lab, options, round_, silent):
    """alpha 0 and the warm-up silence DIST, alpha 1 CLS: exactly zero."""
    client = client_of(lab, round_=round_, options=options)
    batch = next(client.batches(1))
    FedAvg().objective(client, batch).backward()
    weight = client.model.heads["head"].weight
    assert weight.grad[silent].eq(0).all()
    assert weight.grad[1 - silent].abs().sum() > 0
    assert all(p.grad is None for p in client.model.networks.parameters())


def test_without_teacher_and_mixing_it_is_cross_entropy_of_both_tokens(lab):
    client = client_of(lab, options={**PLAIN, "teacher": "none"})
    plain = client_of(lab, client="cross_entropy")
    for batch, same in zip(client.batches(1), plain.batches(1), strict=True):
        assert torch.equal(batch.images, same.images)
        logits = client.model(batch.images)
        found = client.plugin.loss(logits, batch, client)
        rows = functional.cross_entropy(logits.flatten(0, 1), same.labels.repeat_interleave(2))
        torch.testing.assert_close(found, rows)


@pytest.mark.parametrize(("round_", "mixes"), [(1, True), (9, True), (10, False)])
def test_mixing_ends_with_the_global_round(lab, round_, mixes):
    client = client_of(lab, round_=round_)
    targets = torch.cat([batch.extra["targets"] for batch in client.batches(1)])
    torch.testing.assert_close(targets.sum(1), torch.ones(len(targets)))
    assert (targets.amax(1) == 1).all().item() is not mixes


def test_positions_and_tokens_have_no_weight_decay(lab):
    """Without a gradient AdamW's step is the decay alone: w (1 - 0.1 x 0.5)."""
    local = {"optimizer": "adamw", "lr": 0.1, "weight_decay": 0.5, "batch_size": 1000}
    client = client_of(lab, local=local)
    before = client.snapshot()
    client.train(lambda c, b: 0 * FedAvg().objective(c, b))
    after, spared = client.model.state(), {"pos_embed", "cls_token", "dist_token"}
    for name in client.model.parameter_names("shared"):
        if not name.startswith("networks."):
            factor = 1.0 if name.removeprefix("backbone.vit.") in spared else 0.95
            torch.testing.assert_close(after[name], factor * before[name], msg=name)


def test_counts_are_global_where_the_server_knows_them(lab):
    federation = lab.federation(client=TINY)
    own, known = client_of(lab, round_=10), client_of(lab, round_=10, prior=ORACLE)
    assert (
        own.tensors["known_counts"].tolist() == federation.observer.data.client_counts[1].tolist()
    )
    assert known.tensors["known_counts"].tolist() == federation.observer.data.class_counts.tolist()


def test_a_teacher_may_name_classes_that_the_client_lacks(lab):
    client = client_of(lab, round_=10, partition=SHARDS)
    held = client.tensors["class_counts"] > 0
    assert not held.all()
    weights = client.tensors["dist_weights"]
    assert torch.equal(weights[~held], weights[held].max().expand((~held).sum()))


# ---- clients of any kind


@pytest.mark.parametrize("teacher", ["co_teacher", "local", "none"])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_tiny_clients_of_one_class(lab, teacher, count):
    for round_ in (1, 5, 10):
        client = client_of(lab, options={"teacher": teacher}, partition=SHARDS, round_=round_)
        client.data = replace(client.data, indices=client.data.indices[:count])
        metrics = client.plugin.train_networks(client)
        update = FedAvg().local_update(client)
        numbers = [*metrics.values(), *update.metrics.values()]
        assert torch.isfinite(torch.tensor(numbers)).all()
        assert all(
            torch.isfinite(t).all() for t in [*update.sums.values(), *update.personal.values()]
        )
        assert update.metrics["examples"] == count


def test_a_prediction_is_fused_as_the_option_says():
    """CLS gives the classes 0.9 and 0.1, DIST a half each; the paper takes the mean logits."""
    logits = torch.tensor([[[9.0, 1.0], [1.0, 1.0]]]).log()
    expected = {"logits": [0.75, 0.25], "probs": [0.7, 0.3], "cls": [0.9, 0.1], "dist": [0.5, 0.5]}
    for how, shares in expected.items():
        found = DeitLT(head_fusion=how).predict(logits).softmax(dim=1)
        assert found[0].tolist() == pytest.approx(shares)


def test_blocks_are_dropped_more_the_deeper_they_lie(lab):
    """Linear from 0 to ``drop_path`` (Huang et al., ECCV 2016, eq. 4), the branches of training."""
    client = client_of(lab, options={"depth": 3, "drop_path": 0.6})
    blocks = client.model.backbone.vit.blocks
    rates = [[getattr(p, "drop_prob", 0.0) for p in (b.drop_path1, b.drop_path2)] for b in blocks]
    assert [rate for both in rates for rate in both] == pytest.approx([0, 0, 0.3, 0.3, 0.6, 0.6])


def test_bad_values_are_refused(lab):
    with pytest.raises(FedltError, match=r"client\.teacher_schedule is 'linear'; expected"):
        lab.federation(client={**TINY, "teacher_schedule": "linear"})
    with pytest.raises(FedltError, match="patch: 3 does not divide the image side 8"):
        make_server_half(lab.federation(client={**TINY, "patch": 3}).view)
    federation = lab.federation(strategy="centralised", client={**TINY, "teacher": "local"})
    with pytest.raises(FedltError, match="'centralised': there is no client to keep what is"):
        make_server_half(federation.view)
