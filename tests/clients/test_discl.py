"""DisCL's data: stages by the round, what an epoch is made of, and who is not touched by it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pools import make_pool

from fedlt.comparing.comparison import read_comparison
from fedlt.errors import FedltError
from fedlt.flower.server_half import make_server_half
from fedlt.generators.curriculum import (
    EpochPlan,
    draw_epoch,
    most_progress,
    own_factors,
    plan_epoch,
    stage_of,
)
from fedlt.generators.tail import TailData, true_probability
from fedlt.methods.composition import own_cross_entropy
from fedlt.worker.worker import Worker

SIX = ("fedavg", "fedprox", "ditto", "fedrep", "fedrod", "fedloge")


# ---- stages


@pytest.mark.parametrize(
    ("steps", "lengths"),
    [(60, [15, 15, 15, 15]), (62, [16, 16, 15, 15]), (4, [1, 1, 1, 1]), (2, [1, 1, 0, 0])],
)
def test_stages_are_equally_long_the_first_by_one_more(steps, lengths):
    found = [stage_of(step, steps, 4) for step in range(steps)]
    assert found == sorted(found)
    assert [found.count(stage) for stage in range(4)] == lengths
    assert stage_of(steps, steps, 4) is None
    assert stage_of(0, 0, 4) is None


# ---- composition


def test_an_epoch_of_the_papers_size():
    """ImageNet-LT: .136 / .864 of 34,260 others is 5,392 tail slots: 1,643 real, 3,749 synthetic.

    114,203 other images; 30 % of them are 34,260.
    """
    plan = plan_epoch(1643, 114_203, share=0.136, keep=0.3, cap=3.0, least=128)
    assert plan == EpochPlan(34_260, 5_392 - 1_643)


@pytest.mark.parametrize(
    ("tail", "others", "share", "expected"),
    [
        (5, 100, 0.5, EpochPlan(30, 15)),  # 25 are wanted, 3 x 5 are the most
        (5, 20, 0.5, EpochPlan(8, 3)),  # a batch of others at least
        (5, 4, 0.5, EpochPlan(4, 0)),  # all others, where they are fewer than a batch
        (9, 0, 1.0, EpochPlan(0, 27)),  # nothing but tail
        (30, 60, 0.25, EpochPlan(60, 0)),  # more tail than its share: no other image is dropped
    ],
)
def test_plans_by_hand(tail, others, share, expected):
    assert plan_epoch(tail, others, share=share, keep=0.3, cap=3.0, least=8) == expected


def test_every_real_tail_image_is_there_and_fills_differ_by_one_at_most():
    tail, others = torch.arange(4), torch.arange(4, 30)
    generator = torch.Generator().manual_seed(0)
    rows = draw_epoch(tail, others, torch.arange(40, 43), EpochPlan(10, 7), generator)
    counts = rows.bincount(minlength=43)
    assert counts[:4].tolist() == [1] * 4
    assert counts[4:30].sum() == 10
    assert counts[4:30].max() == 1
    assert sorted(counts[40:].tolist()) == [2, 2, 3]  # with replacement only where too few
    few = draw_epoch(tail, others, torch.arange(40, 60), EpochPlan(10, 7), generator)
    assert few.bincount().max() == 1


def test_own_factors_give_the_mean_over_the_real_images_back():
    labels = torch.tensor([0] * 6 + [1] * 2)
    rows = torch.tensor([6, 7, 6, 7, 0, 3, 8, 9])  # 8 and 9 are synthetic
    own = own_factors(rows, labels, torch.tensor([6, 2, 0]))
    assert own[8:].tolist() == [0.0, 0.0]
    values = torch.tensor([1.0] * 6 + [10.0] * 2 + [99.0] * 2)
    assert (own * values[: len(own)])[rows].mean().item() == pytest.approx((6 * 1 + 2 * 10) / 8)


def test_own_factors_where_a_part_of_a_class_fills_the_epoch():
    """Of class 0 two of four images are hard and drawn three times each; kinds are (class, hard).

    The weighted mean is that over the six real images, whatever was drawn.
    """
    labels, hard = torch.tensor([0, 0, 0, 0, 1, 1]), torch.tensor([1, 1, 0, 0, 0, 0])
    kinds = 2 * labels + hard
    rows = torch.tensor([0, 0, 0, 1, 1, 1, 2, 3, 4, 5])
    own = own_factors(rows, kinds, kinds.bincount())
    values = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0, 32.0])
    assert (own * values)[rows].mean().item() == pytest.approx(float(values.mean()))


def test_the_level_with_the_most_progress():
    before = torch.tensor([[0.2, 0.5, 0.1], [0.2, 0.4, 0.1]])
    after = torch.tensor([[0.3, 0.55, 0.4], [0.3, 0.5, 0.3]])
    assert most_progress(before, after) == 2
    assert most_progress(before[:, :1].repeat(1, 2), after[:, :1].repeat(1, 2)) == 0


def numpy_progress(gains):
    """The rule of the authors' code: numpy.percentile, and the mean of what is kept."""
    means = []
    for column in gains.T:
        low, high = np.percentile(column, [25, 75])
        reach = 1.5 * (high - low)
        means.append(column[(column >= low - reach) & (column <= high + reach)].mean())
    return int(np.argmax(means))


def test_outliers_do_not_choose_the_level():
    """One image of nine rose by 0.9: the mean is then the largest, without it the smallest.

    By hand, level 0: eight of 0.01 and one of 0.9, quartiles 0.01, so that 0.9 is outside.
    """
    gains = torch.full((9, 2), 0.05)
    gains[:, 0] = 0.01
    gains[0, 0] = 0.9
    assert gains.mean(dim=0).argmax() == 0
    assert most_progress(torch.zeros(9, 2), gains) == 1
    draws = np.random.default_rng(0)
    for _ in range(50):
        gains = draws.standard_t(1, size=(draws.integers(1, 12), 4))
        found = most_progress(torch.zeros(gains.shape), torch.tensor(gains))
        assert found == numpy_progress(gains)


# ---- inside a client


def client_of(lab, cid=1, *, round_=1, strategy="fedavg", rounds=13, **options):
    client = {"name": "discl", "tail_below": 0.8, **lab.pool(), **options}
    federation = lab.federation(client=client, strategy=strategy, rounds=rounds)
    state = make_server_half(federation.view).state
    return Worker(federation.shares).client(
        cid, round_, state.broadcast, fixed=state.fixed, personal={}
    )


def with_tail(lab, **more):
    """The client with the most images of a tail class by its own mix."""
    found = [client_of(lab, cid, **more) for cid in range(5)]
    parts = [TailData.of(c, 0.8) for c in found]
    sizes = [0 if p is None else int(p.is_hard.sum()) for p in parts]
    return client_of(lab, int(np.argmax(sizes)), **more)


def shown_stages(client, epoch=0):
    """The stages of the synthetic images in an epoch of the client, found by their pixels."""
    own = TailData.of(client, 0.8)
    data = own.data
    from fedlt.data.augment import normalize

    table = normalize(data.images[own.num_real :], data.mean, data.std).flatten(1)
    found = []
    for batch in client.plugin.batches(client, epoch):
        for image, factor in zip(batch.images.flatten(1), batch.extra["own"], strict=True):
            if factor == 0:
                near = (table - image).abs().amax(1).argmin()
                found.append(int(own.stages[near]))
    return found


@pytest.mark.parametrize(
    ("curriculum", "expected"),
    [
        ("diverse_to_specific", [{0}, {1}, {2}, set()]),
        ("specific_to_diverse", [{2}, {1}, {0}, set()]),
        ("oversample", [set()] * 4),
    ],
)
def test_the_clock_is_the_global_round(lab, curriculum, expected):
    """13 rounds, of which 12 are the curriculum's: 4 a level."""
    found = []
    for round_ in (1, 5, 9, 13):
        client = with_tail(lab, round_=round_, curriculum=curriculum)
        found.append(set(shown_stages(client)) if curriculum != "oversample" else set())
        if curriculum == "oversample":
            assert all((b.extra["own"] > 0).all() for b in client.plugin.batches(client, 0))
    assert found == expected


def test_all_levels_mixes_them(lab):
    client = with_tail(lab, curriculum="all_levels")
    assert {stage for epoch in range(10) for stage in shown_stages(client, epoch)} == {0, 1, 2}


def test_the_controls_epochs_have_the_same_classes(lab):
    """What is filled differs, not how much of which class."""
    counts = []
    for curriculum in ("diverse_to_specific", "oversample"):
        client = with_tail(lab, curriculum=curriculum)
        own = TailData.of(client, 0.8)
        tail = own.labels[own.is_hard].unique()
        labels = torch.cat([b.labels for b in client.plugin.batches(client, 0)])
        counts.append((len(labels), int(torch.isin(labels, tail).sum())))
    assert counts[0] == counts[1]


def test_a_client_sees_images_made_from_its_own_alone(lab):
    client = with_tail(lab)
    own = TailData.of(client, 0.8)
    assert len(own.sources)
    assert set(own.sources.tolist()) <= set(client.data.indices.tolist())
    real = client.data.labels[client.data.indices]
    assert torch.equal(own.data.labels[: own.num_real], real)
    sources = client.data.labels[own.sources]
    assert torch.equal(own.data.labels[own.num_real :], sources)


def test_weights_and_priors_count_real_images_alone(lab):
    client, plain = with_tail(lab), None
    federation = lab.federation()
    state = make_server_half(federation.view).state
    plain = Worker(federation.shares).client(
        client.cid, 1, state.broadcast, fixed=state.fixed, personal={}
    )
    for name in ("class_counts", "log_prior"):
        assert torch.equal(client.tensors[name], plain.tensors[name])
    metrics = client.train(lambda c, b: c.plugin.loss(c.model(b.images), b, c))
    assert metrics["examples"] != client.data.num_examples
    assert client.update(metrics).weight == client.data.num_examples


def test_each_client_without_tail_trains_as_the_plain_plugin(lab):
    """In one federation some clients have a tail and some have none."""
    plain = lab.federation()
    state = make_server_half(plain.view).state
    kinds = set()
    for cid in range(5):
        client = client_of(lab, cid)
        has_tail = TailData.of(client, 0.8) is not None
        other = Worker(plain.shares).client(cid, 1, state.broadcast, fixed=state.fixed, personal={})
        same = all(
            torch.equal(a.images, b.images) and not a.extra
            for a, b in zip(client.batches(1), other.batches(1), strict=False)
        )
        assert same != has_tail
        kinds.add(has_tail)
    assert True in kinds


def test_personal_heads_learn_from_real_images_alone(lab):
    """The gradient of FedLoGe's local head does not see what synthetic images show."""
    client = with_tail(lab, strategy="fedloge")
    batch = max(client.batches(1), key=lambda b: int((b.extra["own"] == 0).sum()))
    logits = torch.randn(len(batch.labels), 1, 4, requires_grad=True)
    own_cross_entropy(logits, batch).backward()
    synthetic = batch.extra["own"] == 0
    assert synthetic.any()
    assert logits.grad[synthetic].abs().max() == 0
    assert logits.grad[~synthetic].abs().amax(dim=(1, 2)).min() > 0


# ---- adaptive


def test_held_out_images_have_every_level_and_are_not_trained_on(lab):
    client = with_tail(lab, curriculum="adaptive")
    own = TailData.of(client, 0.8)
    held = own.held_out(3)
    assert len(held) == len(set(own.sources.tolist()))
    assert own.stages[held - own.num_real].tolist() == [[0, 1, 2]] * len(held)
    rest = own.synthetic(None, without=held.flatten())
    assert not set(rest.tolist()) & set(held.flatten().tolist())
    assert len(rest) + held.numel() == len(own.stages)


def test_adaptive_trains_on_real_images_and_then_on_one_level(lab, monkeypatch):
    client = with_tail(lab, curriculum="adaptive")
    answers = iter(torch.tensor([[[0.1, 0.2, 0.3]], [[0.2, 0.5, 0.3]]]))  # the middle gained most
    monkeypatch.setattr("fedlt.generators.tail.true_probability", lambda *_: next(answers))
    shown = shown_stages(client)
    assert set(shown) == {1}


def test_progress_is_measured_in_evaluation_mode_and_leaves_no_trace(lab):
    client = with_tail(lab, curriculum="adaptive")
    client.model.train()
    own = TailData.of(client, 0.8)
    before = {n: t.clone() for n, t in client.model.state().items()}
    held = own.held_out(3)
    found = true_probability(client, own, held)
    assert found.shape == held.shape
    assert ((found > 0) & (found < 1)).all()
    assert client.model.training
    assert all(torch.equal(t, before[n]) for n, t in client.model.state().items())


def test_adaptive_is_refused_where_clients_are_stacked(lab):
    client = {"name": "discl", "curriculum": "adaptive", "tail_below": 0.8, **lab.pool()}
    with pytest.raises(FedltError, match=r"'stacked' cannot run .*client\.model.*'serial'"):
        lab.run(client=client, engine={"name": "stacked"})


# ---- runs


@pytest.mark.parametrize("strategy", SIX)
def test_the_six_strategies_train_on_it(lab, strategy):
    client = {"name": "discl", "tail_below": 0.8, "loss": "balanced_softmax", **lab.pool()}
    outcome = lab.run(strategy=strategy, client=client, rounds=1)
    assert outcome.result["excluded"] == []
    assert outcome.result["client"] == "discl + balanced_softmax"


@pytest.mark.parametrize("strategy", ["fedrod", "fedloge_experts"])
def test_experts_train_on_it(lab, strategy):
    """Their further views are made of synthetic images as of real ones."""
    outcome = lab.run(strategy=strategy, client={"name": "discl", "loss": "mdcs"}, rounds=1)
    assert outcome.result["excluded"] == []
    assert outcome.result["client"] == "discl + mdcs"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"tail_below": 0.0}, "no client holds an image of a tail class"),
        ({"levels": [0.3, 0.1]}, r"levels: .* must ascend, in \[0, 1\)"),
        ({"pool_path": "/nowhere/pool.npz"}, "pool '/nowhere/pool.npz' cannot be read"),
        ({"curriculum": "random"}, "client.curriculum is 'random'; expected"),
    ],
)
def test_wrong_settings_are_one_line(lab, options, reason):
    with pytest.raises(FedltError, match=reason) as error:
        lab.federation(client={"name": "discl", **options})
    assert "\n" not in str(error.value)


def test_an_empty_pool_after_filtering_is_one_line(lab, tmp_path):
    make_pool(lab.config(), tmp_path / "pool.npz")
    client = {"name": "discl", "pool_path": str(tmp_path / "pool.npz"), "min_score": 0.3}
    with pytest.raises(FedltError, match="needs scores, and it has none"):
        lab.federation(client=client)


# ---- the control


def rows_of(tmp_path, rows, **more):
    path = tmp_path / "discl.yaml"
    path.write_text(f"rounds: 2\ncompare:\n  rows:\n{rows}", encoding="utf-8")
    return read_comparison(path, **more).rows


@pytest.mark.parametrize("only", [(), ("made",)])
def test_a_comparison_always_has_the_control_beside_it(tmp_path, only):
    rows = """    plain: {}
    made: {client: {name: discl, pool_path: /pool.npz, loss: focal}}
    all: {client: {name: discl, pool_path: /pool.npz, loss: focal, curriculum: all_levels}}
"""
    found = rows_of(tmp_path, rows, only=only)
    labels = [row.label for row in found]
    assert labels == [*(only or ("plain", "made", "all")), "made (control: oversample)"]
    control = found[-1].tree["client"]
    assert control == {"name": "discl", "loss": "focal", "curriculum": "oversample"}


def test_a_control_that_is_there_is_not_added_twice(tmp_path):
    rows = """    mine: {client: {name: discl, curriculum: oversample}}
    made: {client: discl}
"""
    assert [row.label for row in rows_of(tmp_path, rows)] == ["mine", "made"]
