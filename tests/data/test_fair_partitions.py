"""No client is favoured by its cid: simulations over seeds, against what exchangeable clients get.

If the clients of a scheme are exchangeable, each of K clients gets n / K of any n images on
average. Every test compares client by client with that share, in standard errors.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from fedlt.data.longtail import class_sizes
from fedlt.data.partition_schemes import draw_partition, iid, repair, shards
from fedlt.evaluation.local_test import cap_images, evaluated_clients, proportional_counts

CIFAR100_LT = class_sizes("exponential", 500, 100, 100)  # 10,847 images, 305 of the last 30 classes
LABELS = np.repeat(np.arange(100), CIFAR100_LT)


def partition_config(**changes):
    fields = {
        "scheme": "dirichlet",
        "variant": "default",
        "dirichlet_alpha": 0.5,
        "num_clients": 10,
        "min_samples": 2,
        "shards_per_client": 2,
        "file": None,
    }
    return SimpleNamespace(**(fields | changes))


def standard_errors(draws, fair):
    """Return how far each client's mean is from the fair share, in standard errors (K,).

    The standard deviation is pooled over the clients: a client's own is too small to test with
    where few seeds give that client anything.

    Args:
        draws: (seeds, K).
        fair: The expected value.
    """
    draws = np.asarray(draws, float)
    pooled = np.sqrt(draws.var(axis=0, ddof=1).mean())
    return np.abs(draws.mean(axis=0) - fair) / (pooled / np.sqrt(len(draws)))


@pytest.mark.parametrize("alpha", [0.1, 0.5, 10])
@pytest.mark.parametrize("num_clients", [10, 100])
def test_the_few_class_images_of_a_dirichlet_cut_do_not_depend_on_the_cid(num_clients, alpha):
    """305 images of few-classes: 30.5 a client of 10, 3.05 a client of 100."""
    config = partition_config(num_clients=num_clients, dirichlet_alpha=alpha)
    few = [
        draw_partition(LABELS, 100, config, seed=seed).counts(LABELS)[:, 70:].sum(axis=1)
        for seed in range(40)
    ]
    assert CIFAR100_LT[70:].sum() == 305
    assert standard_errors(few, 305 / num_clients).max() < 5


def test_repair_gives_images_of_the_donor_by_its_class_mix():
    """One donor, 60 : 30 : 10 images of three classes, and 20 clients without an image.

    The 20 images that move are drawn without replacement: the count of a class with share p is
    hypergeometric, mean 20 p and variance 20 p (1 - p) (100 - 20) / 99.
    """
    labels, owner = np.repeat([0, 1, 2], [60, 30, 10]), np.zeros(100, np.int64)
    moved, own = [], []
    for seed in range(400):
        after = repair(owner, 21, min_samples=1, rng=np.random.default_rng(seed))
        moved.append(np.bincount(labels[after > 0], minlength=3))
        own.append([labels[after == cid][0] == 2 for cid in range(1, 21)])
    share = np.array([0.6, 0.3, 0.1])
    error = np.sqrt(20 * share * (1 - share) * 80 / 99 / 400)
    assert (np.abs(np.mean(moved, axis=0) - 20 * share) < 5 * error).all()
    assert standard_errors(own, 0.1).max() < 5


def test_repair_fills_and_breaks_ties_by_chance():
    """Donors 0 and 1 with 11 and 10 images of classes 0 and 1; clients 2 to 6 lack one each.

    Client 0 gives first, then both are equal and either gives: of 5 images, 3 or 2 come from
    client 0, and each client that lacks one gets class 0 with one chance q. Four moves from the
    tie at 10 : 10 come in pairs, one from each, so client 0 gives 1 + 2 = 3 and q = 3 / 5. With
    one client to fill and donors of 10 and 10 images, each donor gives with chance 1 / 2.
    """
    labels = owner = np.repeat([0, 1], [11, 10])
    got, first = [], []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        after = repair(owner, 7, min_samples=1, rng=rng)
        got.append([labels[after == cid][0] == 0 for cid in range(2, 7)])
        tied = np.repeat([0, 1], 10)
        first.append([tied[repair(tied, 3, min_samples=1, rng=rng) == 2][0] == 0])
    assert (np.sum(got, axis=1) == 3).all()
    assert standard_errors(got, 0.6).max() < 5
    assert standard_errors(first, 0.5).max() < 5


@pytest.mark.parametrize("scheme", ["dirichlet", "iid", "shards"])
def test_clients_that_were_repaired_are_exchangeable(scheme):
    """Uneven clients, most of them repaired: 0.05 of alpha, and 20 images wanted of 24.6."""
    labels = np.repeat(np.arange(10), class_sizes("exponential", 100, 20, 10))[:320]
    config = partition_config(
        scheme=scheme, num_clients=13, dirichlet_alpha=0.05, min_samples=20, shards_per_client=3
    )
    counts = np.array(
        [draw_partition(labels, 10, config, seed=seed).counts(labels) for seed in range(200)]
    )
    assert standard_errors(counts.sum(axis=2), 320 / 13).max() < 5
    for label, total in enumerate(np.bincount(labels, minlength=10)):
        if total:
            assert standard_errors(counts[:, :, label], total / 13).max() < 5


def test_what_an_even_deal_leaves_over_goes_to_clients_by_chance():
    """107 images for 10 clients: seven of them get one more, each with chance .7.

    As shards (3 a client): 17 of 30 shards are larger by one.
    """
    even = [np.bincount(iid(107, 10, np.random.default_rng(seed))) for seed in range(400)]
    assert standard_errors(even, 10.7).max() < 5
    labels, dealt, larger = np.repeat([0, 1], [54, 53]), [], []
    for seed in range(400):
        owner = shards(labels, 10, 3, np.random.default_rng(seed))
        dealt.append(np.bincount(owner, minlength=10))
        one_each = shards(np.arange(107), 30, 1, np.random.default_rng(seed))  # sorted: in order
        larger.append(np.diff(np.flatnonzero(np.diff(one_each)), prepend=-1)[:10] == 4)
    assert standard_errors(dealt, 10.7).max() < 5
    assert standard_errors(larger, 17 / 30).max() < 5


def test_equal_remainders_of_sampled_tests_go_to_classes_by_chance():
    """Mix 3 : 2 : 2 and 10 test images a class: M = floor(70 / 3) = 23, shares 9 6/7, 6 4/7, 6 4/7.

    Two images are left over: class 0 gets one, and the equal classes 1 and 2 share the other.
    """
    drawn = np.array(
        [proportional_counts(np.tile([3, 2, 2], (50, 1)), [10] * 3, seed=s) for s in range(40)]
    )
    assert (drawn[:, :, 0] == 10).all()
    assert (drawn.sum(axis=2) == 23).all()
    more = drawn[:, :, 1] == 7
    assert standard_errors(more, 0.5).max() < 5  # of each client, over the seeds
    assert standard_errors(more.T, 0.5).max() < 5  # of each seed, over the clients


def test_scored_clients_and_capped_images_are_drawn_alike():
    """12 of 30 clients: each with chance .4. 2 of 5 images a class: each with chance .4."""
    chosen = [np.isin(np.arange(30), evaluated_clients(30, 12, seed=seed)) for seed in range(400)]
    assert standard_errors(chosen, 0.4).max() < 5
    labels = np.arange(15) % 3
    capped = [np.isin(np.arange(15), cap_images(labels, 2, seed=seed)) for seed in range(400)]
    assert standard_errors(capped, 0.4).max() < 5
