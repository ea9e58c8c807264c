"""Drawing partitions: FedLoGe's published goldens, and properties that must hold for every draw."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from fedlt.data.longtail import class_sizes
from fedlt.data.partition_schemes import (
    dirichlet,
    dirichlet_reference,
    draw_partition,
    iid,
    repair,
    shards,
)
from fedlt.errors import FedltError


def _config(**changes):
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


def _long_tailed_labels(num_classes=10, n_max=100, factor=20):
    sizes = class_sizes("exponential", n_max, factor, num_classes)
    return np.repeat(np.arange(num_classes), sizes)


@pytest.mark.parametrize(
    ("num_classes", "factor", "num_clients", "first", "span", "local_test"),
    [
        (100, 100, 40, [264, 285, 233, 378, 283], (185, 406), 8636),
        (100, 100, 20, [573, 766, 469, 733, 726], (320, 766), 9199),
        (100, 50, 20, [557, 682, 644, 784, 649], None, 9261),
        (10, 50, 40, [226, 200, 143, 400, 329], (66, 995), 9850),
        (10, 100, 40, [215, 141, 207, 171, 243], None, 9829),
    ],
)
def test_reference_gives_the_sizes_in_the_authors_logs(
    num_classes, factor, num_clients, first, span, local_test
):
    """Seed 3407, alpha 0.5, labels in class order; t_kc = int(10000 n_kc / N) test images."""
    labels = _long_tailed_labels(num_classes, 50_000 // num_classes, factor)
    config = _config(variant="reference", num_clients=num_clients)
    partition = draw_partition(labels, num_classes, config, seed=3407)
    sizes = partition.sizes()
    assert sizes[:5].tolist() == first
    assert span is None or (sizes.min(), sizes.max()) == span
    counts = partition.counts(labels)
    assert (10_000 * counts // len(labels)).sum() == local_test
    assert counts.sum() == len(labels)


def test_reference_reads_the_legacy_generator_in_the_published_order():
    labels = np.repeat([0, 1], [6, 4])
    rng = np.random.RandomState(11)
    rng.binomial(1, 1, size=(3, 2))
    expected = []
    for count in (6, 4):
        shares = rng.dirichlet(np.repeat(0.7, 3))
        expected += rng.choice([0, 1, 2], count, p=shares).tolist()
    assert dirichlet_reference(labels, 2, 3, alpha=0.7, seed=11).tolist() == expected


def test_reference_leaves_empty_clients():
    labels = _long_tailed_labels()
    config = _config(variant="reference", num_clients=100, dirichlet_alpha=0.05)
    assert draw_partition(labels, 10, config, seed=1).sizes().min() == 0


@pytest.mark.parametrize("scheme", ["dirichlet", "iid", "shards"])
@pytest.mark.parametrize("alpha", [1e-6, 0.1, 100])
@pytest.mark.parametrize("num_clients", [1, 7, 60])
def test_every_image_has_one_client_and_every_client_enough(scheme, alpha, num_clients):
    labels = _long_tailed_labels()
    config = _config(scheme=scheme, dirichlet_alpha=alpha, num_clients=num_clients, min_samples=5)
    partition = draw_partition(labels, 10, config, seed=3)
    joined = np.concatenate(partition.clients)
    assert sorted(joined) == list(range(len(labels)))
    assert partition.num_clients == num_clients
    assert partition.sizes().min() >= 5
    assert partition.hash() == draw_partition(labels, 10, config, seed=3).hash()
    if num_clients > 1:
        assert partition.hash() != draw_partition(labels, 10, config, seed=4).hash()


def test_dirichlet_gives_each_client_its_share_to_within_one():
    """The shares are read again from an equal generator; shuffling is replayed."""
    labels = np.repeat([0, 1], [500, 300])
    owner = dirichlet(labels, 2, 4, alpha=1.0, rng=np.random.default_rng(9))
    replay = np.random.default_rng(9)
    for label, count in enumerate((500, 300)):
        shares = replay.dirichlet(np.ones(4))
        replay.shuffle(np.arange(count))
        replay.permutation(4)
        held = np.bincount(owner[labels == label], minlength=4)
        assert np.abs(held - shares * count).max() < 1 + 1e-9


def test_small_alpha_is_more_uneven_than_large():
    labels = _long_tailed_labels(10, 1000, 1)

    def spread(alpha):
        config = _config(dirichlet_alpha=alpha, min_samples=0)
        return draw_partition(labels, 10, config, seed=1).counts(labels).std()

    assert spread(0.1) > spread(1.0) > spread(100.0)


def test_iid_sizes_differ_by_one_at_most():
    sizes = np.bincount(iid(103, 10, np.random.default_rng(0)))
    assert sorted(sizes) == [10] * 7 + [11] * 3


def test_shards_hold_few_classes():
    labels = np.repeat(np.arange(10), 20)
    owner = shards(labels, 10, 2, np.random.default_rng(0))
    counts = np.bincount(owner * 10 + labels, minlength=100).reshape(10, 10)
    assert (counts.sum(1) == 20).all()
    assert set(counts.reshape(-1)) <= {0, 10, 20}


@pytest.mark.parametrize("seed", range(20))
def test_repair_moves_exactly_what_lacks_and_only_to_those_that_lack(seed):
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(30, 0.2))
    owner = rng.choice(30, 200, p=shares)
    before = np.bincount(owner, minlength=30)
    minimum = int(rng.integers(0, 200 // 30 + 1))
    after = repair(owner, 30, min_samples=minimum, rng=rng)
    sizes = np.bincount(after, minlength=30)
    assert sizes.min() >= minimum
    assert (after != owner).sum() == np.maximum(minimum - before, 0).sum()
    assert (sizes[before < minimum] == minimum).all()


def test_repair_is_quick_for_many_clients_and_ends_when_just_possible():
    owner, rng = np.zeros(20_000, np.int64), np.random.default_rng(1)
    sizes = np.bincount(repair(owner, 2_000, min_samples=10, rng=rng))
    assert (sizes == 10).all()
    with pytest.raises(FedltError, match="min_samples: 11 for 2000"):
        repair(owner, 2_000, min_samples=11, rng=rng)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_clients": 101, "min_samples": 0}, "101 clients for 100 training images"),
        ({"num_clients": 60}, "need 120 images, there are 100; at most 1 here"),
        ({"scheme": "dirichelt"}, "nearest: 'dirichlet'"),
        ({"variant": "refrence"}, "nearest: 'reference'"),
        ({"variant": "reference", "scheme": "iid"}, "reference is a dirichlet, not 'iid'"),
        ({"scheme": "shards", "shards_per_client": 11}, "1 to 10 here"),
        ({"variant": "reference", "dirichlet_alpha": 1e-9}, "1e-09 is too small"),
        ({"dirichlet_alpha": 1e308}, "too large"),
    ],
)
def test_what_cannot_be_met_is_refused(changes, message):
    with pytest.raises(FedltError, match=message):
        draw_partition(np.arange(100) % 10, 10, _config(**changes), seed=1)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_reference_names_the_seeds_it_can_use(seed):
    with pytest.raises(FedltError, match=r"seed: .* reference"):
        dirichlet_reference(np.arange(9) % 3, 3, 2, alpha=1, seed=seed)


def test_repair_takes_from_whoever_is_the_largest_at_that_moment():
    """By hand: sizes 9, 6, 0, 0 and a minimum of 3, so 6 images move: 3 from client 0 (9 to 6),
    then, whatever the ties, 3 in turn from clients 0 and 1, which end at 5 and 4 or at 4 and 5."""
    owner = np.repeat([0, 1], [9, 6])
    ends = set()
    for seed in range(20):
        repaired = repair(owner, 4, min_samples=3, rng=np.random.default_rng(seed))
        ends.add(tuple(np.bincount(repaired, minlength=4).tolist()))
    assert ends == {(5, 4, 3, 3), (4, 5, 3, 3)}
    assert owner.tolist() == [0] * 9 + [1] * 6
