"""Diagnostics: each on a case whose answer is known, and in runs that they must not change."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from fedlt.data.shots import ShotGroups
from fedlt.evaluation.collapse import class_vectors, neural_collapse, pruned_energy
from fedlt.evaluation.drift import agreement, tail_gradient, update_drift
from fedlt.models.etf import dense_etf
from fedlt.rng import torch_generator

SHOTS = ShotGroups("rank", many=(0,), medium=(1,), few=(2,))


def test_collapsed_features_have_zeros_everywhere():
    """Features on the corners of a simplex frame, class vectors the same but for their length."""
    corners = dense_etf(8, 4, torch_generator(0, "test"))  # (C, D)
    labels = torch.tensor([0, 0, 0, 1, 2, 2, 3])
    found = neural_collapse(corners[labels], labels, weight=3 * corners, predicted=labels)
    assert found == pytest.approx(dict.fromkeys(found, 0.0), abs=1e-6)


@pytest.mark.parametrize("times", [1, 10])
def test_collapse_by_hand(times):
    """One dimension, two classes, {-3, 1} and {3, -1}: means -1 and 1, variances 4.

    S_W = 4, S_B = (1 + 1) / 2 = 1, so nc1 = 4 / 1 / 2 = 2. The centred means are opposite and of
    one length: nc2 is zero twice. Class vectors (1, -1) point away from the means (-1, 1): scaled
    to norm 1 they differ by 2 / sqrt(2) twice, squared 2 + 2 = 4. Predictions are right, but the
    second image of each class is nearer to the other mean: nc4 = 1/2. Images of the first class
    ten times over change nothing.
    """
    features = torch.tensor([[-3.0], [1.0]] * times + [[3.0], [-1.0]])
    labels = torch.tensor([0, 0] * times + [1, 1])
    weight = torch.tensor([[1.0], [-1.0]])
    found = neural_collapse(features, labels, weight=weight, predicted=labels)
    expected = {"nc1": 2.0, "nc2_norm": 0.0, "nc2_angle": 0.0, "nc3": 4.0, "nc4": 0.5}
    assert found == pytest.approx(expected, abs=1e-12)


def test_nc2_by_hand():
    """Three means at 0, 1 and 5 on a line: centred -2, -1, 3.

    Lengths 2, 1, 3: mean 2, variance 2/3. Cosines 1, -1, -1 against -1/2: mean (3/2 + 1/2 + 1/2)/3.
    """
    features, labels = torch.tensor([[0.0], [1.0], [5.0]]), torch.arange(3)
    found = neural_collapse(features, labels, weight=None, predicted=None)
    assert found["nc2_norm"] == pytest.approx(math.sqrt(2 / 3) / 2)
    assert found["nc2_angle"] == pytest.approx(2.5 / 3)
    assert found["nc1"] == pytest.approx(0.0)
    assert found["nc3"] is None
    assert found["nc4"] is None


@pytest.mark.parametrize("seed", range(5))
def test_collapse_by_a_loop_over_images(seed):
    """Plain NumPy, pairs and images one by one; class ids with gaps, class vectors off centre."""
    rng = np.random.default_rng(seed)
    ids = [1, 4, 6]
    labels = np.repeat(ids, [2, 5, 3])
    x, w = rng.normal(size=(10, 5)), rng.normal(size=(7, 5)) + 3
    predicted = rng.choice(ids, 10)
    mu = [np.mean([x[i] for i in range(10) if labels[i] == c], axis=0) for c in ids]
    m = [one - sum(mu) / 3 for one in mu]
    within = sum(
        np.outer(x[i] - mu[k], x[i] - mu[k]) / (labels == c).sum() / 3
        for k, c in enumerate(ids)
        for i in range(10)
        if labels[i] == c
    )
    between = sum(np.outer(one, one) for one in m) / 3
    nearest = [ids[np.argmin([np.linalg.norm(row - one) for one in mu])] for row in x]
    wrong = np.array(nearest) != predicted
    own = w[ids] - w[ids].mean(axis=0)
    expected = {
        "nc1": np.trace(within @ np.linalg.pinv(between, rcond=1e-10)) / 3,
        "nc3": np.sum((own / np.linalg.norm(own) - np.array(m) / np.linalg.norm(m)) ** 2),
        "nc4": np.mean([wrong[labels == c].mean() for c in ids]),
    }
    given = {"weight": torch.tensor(w), "predicted": torch.tensor(predicted)}
    found = neural_collapse(torch.tensor(x), torch.tensor(labels), **given)
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_one_class_has_no_collapse():
    found = neural_collapse(torch.ones(2, 3), torch.zeros(2).long(), weight=None, predicted=None)
    assert set(found.values()) == {None}


def test_class_vectors_by_hand():
    """Vectors along the axes with norms 3, 2, 1; counts e^3, e^2, e: norm is the log count."""
    counts = torch.tensor([3.0, 2.0, 1.0]).exp()
    found = class_vectors(torch.diag(torch.tensor([3.0, 2.0, 1.0])), counts, SHOTS)
    norms = {"norm_many": 3.0, "norm_medium": 2.0, "norm_few": 1.0, "norm_log_count": 1.0}
    angles = dict.fromkeys(
        ("angle_mean", "angle_min", "angle_many", "angle_medium", "angle_few"), 90.0
    )
    assert found == pytest.approx({**norms, **angles, "angle_std": 0.0}, abs=1e-5)


def test_angles_by_hand():
    """Directions 0, 100 and 230 degrees: pairs 100, 130, 130, mean 120, variance 600 / 3."""
    turns = torch.deg2rad(torch.tensor([0.0, 100.0, 230.0]))
    weight = torch.stack([turns.cos(), turns.sin()], dim=1)
    found = class_vectors(weight, torch.tensor([3, 2, 1]), SHOTS)
    expected = {"angle_mean": 120, "angle_min": 100, "angle_std": math.sqrt(200)}
    expected |= {"angle_many": 100, "angle_medium": 100, "angle_few": 130}
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-3)


def test_a_simplex_frame_has_its_angle():
    """arccos(-1/3) = 109.47 degrees between any two of four corners."""
    frame = dense_etf(6, 4, torch_generator(0, "test"))
    found = class_vectors(frame, torch.ones(4), ShotGroups("none"))
    assert found["angle_mean"] == pytest.approx(math.degrees(math.acos(-1 / 3)), abs=1e-4)
    assert found["angle_std"] == pytest.approx(0.0, abs=1e-4)
    assert found["norm_few"] is None
    assert found["norm_log_count"] is None  # equal counts have no slope


@pytest.mark.parametrize("count", [7, 50])
def test_counts_that_are_equal_but_for_rounding_have_no_slope(count):
    """The mean of ten equal logarithms is not exactly that logarithm."""
    weight = torch.diag(torch.arange(1.0, 11.0))
    found = class_vectors(weight, torch.full((10,), count), ShotGroups("none"))
    assert found["norm_log_count"] is None


def test_pruned_energy_by_hand():
    """Features (3, 4): of 25, class 0 prunes 16, class 1 prunes 9, class 2 nothing."""
    weight = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    features, labels = torch.tensor([[3.0, 4.0]]).repeat(4, 1), torch.tensor([0, 0, 1, 2])
    found = pruned_energy(features, labels, weight, SHOTS)
    expected = {"pruned_many": 16 / 25, "pruned_medium": 9 / 25, "pruned_few": 0.0}
    assert found == pytest.approx({**expected, "pruned": 1 / 3, "pruned_share": 1 / 3})
    assert pruned_energy(features, labels, torch.ones(3, 2), SHOTS) == {}


def test_drift_by_hand():
    """From (3, 4), |w| = 5, one step of 1 along each axis: orthogonal, spread 1 - 1/2."""
    start = {"w": torch.tensor([3.0]), "v": torch.tensor([4.0])}
    updates = [{**start, "w": torch.tensor([4.0])}, {**start, "v": torch.tensor([5.0])}]
    found = update_drift(updates, start)
    assert found == pytest.approx({"drift_norm": 0.2, "drift_spread": 0.5, "drift_cosine": 0.0})
    same = update_drift([updates[0]] * 3, start)
    assert same == pytest.approx({"drift_norm": 0.2, "drift_spread": 0.0, "drift_cosine": 1.0})
    alone = update_drift(updates[:1], start)
    assert alone["drift_spread"] is None


def test_tail_gradient_by_hand():
    """Equal logits: every image pulls alike, so the share of the gradient is that of the images.

    Then the frequent class is right beyond doubt: all that is left is the rare class's.
    """
    labels, counts = torch.tensor([0, 0, 1]), np.array([9, 1])
    found = tail_gradient(torch.zeros(3, 2), labels, counts, [1])
    assert found == pytest.approx({"tail_gradient": 0.1, "tail_images": 0.1})
    sure = torch.tensor([[100.0, 0.0], [100.0, 0.0], [0.0, 0.0]])
    assert tail_gradient(sure, labels, counts, [1])["tail_gradient"] == pytest.approx(1.0)
    assert tail_gradient(sure, labels, counts, [])["tail_gradient"] is None


def test_agreement_by_hand():
    """Two test images a class. A client of class 0 agrees on one of two; one with classes 0 and 1
    in proportion 1 : 3 on both of class 0 and none of class 1: (1/2 + 1/4) / 2.
    """
    labels, generic = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 1, 1])
    own = [torch.tensor([0, 1, 1, 1]), torch.tensor([0, 0, 0, 0])]
    counts = [np.array([5, 0]), np.array([1, 3])]
    assert agreement(own, generic, labels, counts) == pytest.approx(0.375)


def strip(rows):
    return [{n: v for n, v in row.items() if not n.startswith("diagnostics/")} for row in rows]


def without(bits):
    return {**bits, "rows": [row for row in strip(bits["rows"]) if len(row) > 1]}


@pytest.mark.parametrize("strategy", ["fedavg", "fedloge", "ditto", "fedbabu"])
def test_they_do_not_change_a_run(lab, strategy):
    plain = lab.run(strategy=strategy, rounds=3)
    looked = lab.run(strategy=strategy, rounds=3, diagnostics={"every": 1})
    assert without(looked.bits) == plain.bits
    assert looked.result["config_hash"] == plain.result["config_hash"]
    assert all("diagnostics/nc1" in row for row in looked.rows)


def test_they_come_every_k_rounds_and_after_the_last(lab):
    run = lab.run(rounds=5, evaluate={"every": 5}, diagnostics={"every": 2})
    rows = {row["round"]: row for row in run.rows}
    assert [r for r, row in rows.items() if "diagnostics/nc1" in row] == [2, 4, 5]
    assert "generic/accuracy" not in rows[2]
    assert not [name for name in run.result["best_on_test"] if name.startswith("diagnostics")]


def test_they_say_what_is_known_of_a_method(lab):
    fedavg = lab.run(diagnostics={"every": 1, "clients": 2}).rows[-1]
    assert fedavg["diagnostics/agreement"] == 1.0  # its personal model is the generic one
    assert fedavg["diagnostics/clients"] == 2
    assert fedavg["diagnostics/drift_norm"] > 0
    fednh = lab.run(strategy="fednh", diagnostics={"every": 1}).rows[-1]
    # Prototypes travel as sums, no step of SGD's; without them 0.05 to 0.11 for seeds 1 to 5.
    assert fednh["diagnostics/drift_norm"] < 0.2
    fedloge = lab.run(strategy="fedloge", diagnostics={"every": 1}).rows[-1]
    assert fedloge["diagnostics/sse_c/pruned_share"] == pytest.approx(0.6, abs=0.02)
    assert 0 < fedloge["diagnostics/sse_c/pruned"] < 1
    assert fedloge["diagnostics/sse_c/angle_std"] < 1
    # Realigned vectors have equal norms; what is left in its place is a direction.
    assert fedloge["diagnostics/realigned/norm_few"] == pytest.approx(1.0, abs=1e-4)
    assert fedloge["diagnostics/realigned/norm_log_count"] is None


def test_a_resumed_run_has_the_same(lab):
    changes = {"rounds": 4, "diagnostics": {"every": 1}, "checkpoint": {"every": 1}}
    whole = lab.run(**changes)
    resumed = lab.resume(lab.stopped(2, **changes))
    assert resumed.bits == whole.bits


@pytest.mark.slow
@pytest.mark.ray
def test_ray_has_the_same(lab):
    changes = {"strategy": "fedloge", "rounds": 2, "diagnostics": {"every": 1}}
    serial = lab.run(**changes)
    ray = lab.run(**changes, engine={"name": "ray", "workers": 2})
    assert ray.bits == serial.bits


def test_methods_without_a_generic_model_and_pooled_ones(lab):
    """What does not exist is not measured, and nothing fails."""
    local = lab.run(strategy="local_only", diagnostics={"every": 1}).rows[-1]
    assert "diagnostics/nc1" not in local
    assert local["diagnostics/agreement"] is None
    pooled = lab.run(strategy="centralised", diagnostics={"every": 1}).rows[-1]
    assert "diagnostics/nc1" in pooled
    assert "diagnostics/drift_norm" not in pooled
    assert json.dumps(pooled, allow_nan=False)
