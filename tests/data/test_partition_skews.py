"""Schemes with one kind of skew: closed forms, and no client favoured by its cid."""

from __future__ import annotations

import numpy as np
import pytest

from fedlt.config import PartitionConfig
from fedlt.data.longtail import class_sizes
from fedlt.data.partition_schemes import draw_partition
from fedlt.data.partition_skews import class_orders, local_tail, quantity, specialists
from fedlt.errors import FedltError

LABELS = np.repeat(np.arange(10), class_sizes("exponential", 200, 50, 10))
BALANCED = np.repeat(np.arange(10), 600)


def counts_of(owner, labels=LABELS, clients=10):
    return np.bincount(owner * 10 + labels, minlength=clients * 10).reshape(clients, 10)


def draw(seed=1, labels=LABELS, **changes):
    config = PartitionConfig(**changes)
    return draw_partition(labels, 10, config, seed=seed).counts(labels)


@pytest.mark.parametrize("changes", [
    {"scheme": "quantity"},
    {"scheme": "quantity", "dirichlet_alpha": 0.05, "num_clients": 37},
    {"scheme": "local_tail"},
    {"scheme": "local_tail", "local_imbalance_factor": 100.0, "num_clients": 37},
    {"scheme": "local_tail", "num_clients": 1},
    {"scheme": "specialist"},
    {"scheme": "specialist", "holders": 3, "num_clients": 37, "dirichlet_alpha": 0.05},
])  # fmt: skip
def test_every_image_has_one_client_and_every_client_enough(changes):
    counts = draw(**changes)
    assert counts.sum(axis=0).tolist() == np.bincount(LABELS).tolist()
    assert counts.sum(axis=1).min() >= 2
    assert (counts == draw(**changes)).all()
    if changes.get("num_clients") != 1:
        assert (counts != draw(seed=2, **changes)).any()


@pytest.mark.parametrize("changes", [
    {"scheme": "quantity", "min_samples": 0},
    {"scheme": "quantity", "min_samples": 20, "dirichlet_alpha": 0.1},
    {"scheme": "local_tail", "num_clients": 7},
    {"scheme": "specialist", "holders": 2, "num_clients": 7, "min_samples": 10},
])  # fmt: skip
def test_no_client_is_favoured_by_its_cid(changes):
    """Over 150 seeds each of K clients has 1 / K of all images, and of the three rarest classes."""
    clients = changes.get("num_clients", 10)
    drawn = np.array([draw(seed=seed, **changes) for seed in range(150)], float)
    for part in (drawn.sum(axis=2), drawn[:, :, 7:].sum(axis=2)):
        fair, error = part.sum() / part.size, np.sqrt(part.var(axis=0, ddof=1).mean() / 150)
        assert np.abs(part.mean(axis=0) - fair).max() < 5 * error
        assert part.shape == (150, clients)


def test_quantity_gives_all_clients_the_same_mix():
    """Client k has p_k n_c of every class c to within one, with the p that the generator gives."""
    owner = quantity(LABELS, 10, 8, alpha=0.7, rng=np.random.default_rng(4))
    shares = np.random.default_rng(4).dirichlet(np.full(8, 0.7))
    expected = np.outer(shares, np.bincount(LABELS))
    assert np.abs(counts_of(owner, clients=8) - expected).max() < 1 + 1e-9
    with pytest.raises(FedltError, match="too small or too large"):
        quantity(LABELS, 10, 8, alpha=1e308, rng=np.random.default_rng(4))


def test_rounding_gives_a_small_client_its_share_in_the_mean():
    """Two clients with p = 0.9 and 0.1 and one image a class: client 1 has it in 1 of 10 draws."""

    class Shares(np.random.Generator):
        def dirichlet(self, alpha):
            return np.array([0.9, 0.1])

    labels, rng = np.arange(10), Shares(np.random.PCG64(1))
    held = [quantity(labels, 10, 2, alpha=1, rng=rng).sum() for _ in range(400)]
    assert np.mean(held) == pytest.approx(1.0, abs=5 * np.sqrt(0.9 / 400))


@pytest.mark.parametrize("clients", [10, 30])
def test_local_tails_are_exact_where_classes_are_alike(clients):
    """600 images a class, K a multiple of C = 10: rank r has 600 w_r / (K / 10 sum of w) images."""
    weights = 20.0 ** (-np.arange(10) / 9)
    expected = 6000 / clients * weights / weights.sum()
    rng = np.random.default_rng(3)
    owner = local_tail(BALANCED, 10, clients, imbalance_factor=20, rng=rng)
    tails = -np.sort(-counts_of(owner, BALANCED, clients), axis=1)
    assert np.abs(tails - expected).max() <= 1
    orders = {tuple(np.argsort(-row)) for row in counts_of(owner, BALANCED, clients)}
    assert len(orders) == clients


def test_local_tails_divide_a_class_by_the_clients_weights():
    """n_kc = n_c w_kc / sum_j w_jc, to within one, also for a part of a Latin square."""
    rng = np.random.default_rng(5)
    owner = local_tail(LABELS, 10, 6, imbalance_factor=10, rng=rng)
    weights = 10.0 ** (-class_orders(6, 10, np.random.default_rng(5)) / 9)
    expected = np.bincount(LABELS) * weights / weights.sum(axis=0)
    assert np.abs(counts_of(owner, clients=6) - expected).max() < 1 + 1e-9


def test_orders_are_latin_squares_and_each_rank_is_as_likely():
    orders = class_orders(25, 10, np.random.default_rng(1))
    for square in (orders[:10], orders[10:20]):
        assert (np.sort(square, axis=0) == np.arange(10)[:, None]).all()
        assert (np.sort(square, axis=1) == np.arange(10)).all()
    first = [class_orders(3, 4, np.random.default_rng(seed))[0, 0] for seed in range(800)]
    assert np.abs(np.bincount(first) / 800 - 0.25).max() < 5 * np.sqrt(0.25 * 0.75 / 800)


@pytest.mark.parametrize("holders", [1, 3])
def test_rare_classes_live_on_specialists_only(holders):
    """200 * 50 ** (-c / 9) is below 20 from class 6 on; repair moves the other classes alone."""
    rare, cids = specialists(LABELS, 10, 12, holders=holders, seed=8)
    assert rare == (6, 7, 8, 9)
    counts = draw(8, scheme="specialist", holders=holders, num_clients=12, min_samples=15)
    assert len(cids) == holders
    others = np.setdiff1d(np.arange(12), cids)
    assert counts[others, 6:].sum() == 0
    assert counts[:, :6].sum(axis=1).min() >= 15
    assert counts[cids, 6:].sum() == (LABELS >= 6).sum()


def test_with_all_clients_as_specialists_it_is_a_dirichlet():
    changes = {"num_clients": 9, "min_samples": 12, "dirichlet_alpha": 0.1}
    plain = draw(scheme="dirichlet", **changes)
    assert (draw(scheme="specialist", holders=9, **changes) == plain).all()


def test_specialists_need_rare_classes():
    with pytest.raises(FedltError, match="specialist needs rare classes, but the classes are"):
        draw(labels=BALANCED, scheme="specialist")
    with pytest.raises(FedltError, match=r"min_samples: 54 for 10 clients, \d+ images"):
        draw(scheme="specialist", min_samples=54)
