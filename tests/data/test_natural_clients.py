"""Clients by nature: users that are dropped, put together, and named."""

from __future__ import annotations

import numpy as np
import pytest

from fedlt.config import PartitionConfig
from fedlt.data.dealing import deal
from fedlt.data.natural_clients import natural_clients
from fedlt.errors import FedltError

USERS = np.array([0, 0, 1, 3, 3, 3, -1])
LABELS = np.array([0, 1, 0, 1, 0, 1, 0])


def natural(users=USERS, **changes):
    labels = LABELS if len(users) == len(LABELS) else np.arange(len(users)) % 2
    return deal(labels, 2, PartitionConfig(scheme="natural", **changes), seed=1, users=users)


def test_users_are_clients_in_the_order_of_their_numbers():
    """Users 0, 1 and 3 of the data set are clients 0, 1 and 2; user 2 has no training image."""
    dealt = natural(uncovered="drop")
    assert dealt.partition.owner().tolist() == [0, 0, 1, 2, 2, 2, -1]
    assert dealt.notes == ("1 of 7 training images belong to no client and are not used",)
    assert dealt.natural.cids_of(np.array([3, 2, 0, -1, 9])).tolist() == [2, -1, 0, -1, -1]
    assert dealt.natural.names(("ann", "bob", "cy", "dan")) == ("ann", "bob", "dan")
    with pytest.raises(FedltError, match=r"1 of 7 images have no client number; .*uncovered=drop"):
        natural()


def test_small_users_are_dropped_with_their_images():
    """Users (a, a, b, c) with at least 2 images: a alone is left."""
    dealt = natural(np.array([0, 0, 1, 2]), min_images=2)
    assert dealt.partition.owner().tolist() == [0, 0, -1, -1]
    assert dealt.notes == (
        "2 of 3 natural clients have fewer than 2 images and are dropped, with 2 of 4 images",
    )


@pytest.mark.parametrize(("users", "merge"), [(9, 2), (9, 4), (5, 4), (6, 3), (3, 5)])
def test_whole_users_are_put_together(users, merge):
    """ceil(U / merge) clients of at most ``merge`` users, whose numbers differ by at most one."""
    numbers = np.repeat(np.arange(users), 3)
    found = natural_clients(numbers, min_images=1, merge=merge, seed=2)
    held = np.bincount(found.cid_of)
    assert len(held) == found.num_clients == -(-users // merge)
    assert held.max() <= merge
    assert held.max() - held.min() <= 1
    dealt = natural(numbers, merge=merge)
    for cid in dealt.partition.owner().reshape(users, 3):
        assert len(set(cid.tolist())) == 1


def test_which_users_meet_is_drawn_by_the_seed_and_fair():
    """10 users in 4 clients: 2 of the clients, drawn at random, have three users."""
    users = np.arange(10)
    drawn = [natural_clients(users, min_images=1, merge=3, seed=seed).cid_of for seed in range(400)]
    assert (drawn[0] == natural_clients(users, min_images=1, merge=3, seed=0).cid_of).all()
    larger = np.array([np.bincount(cid_of) == 3 for cid_of in drawn])
    assert np.abs(larger.mean(axis=0) - 0.5).max() < 5 * np.sqrt(0.25 / 400)
    together = np.array([cid_of[0] == cid_of[1:] for cid_of in drawn])
    fair = (2 * 3 * 2 + 2 * 2 * 1) / (10 * 9)  # ordered pairs in one client, of all ordered pairs
    assert np.abs(together.mean(axis=0) - fair).max() < 5 * np.sqrt(fair * (1 - fair) / 400)


def test_merged_clients_are_named_by_all_their_users():
    dealt = natural(np.array([0, 1, 2, 3]), merge=2)
    names = dealt.natural.names(("a", "b", "c", "d"))
    assert sorted(" + ".join(names).split(" + ")) == ["a", "b", "c", "d"]
    assert all(name.count(" + ") == 1 for name in names)
    assert dealt.natural.names(()) == ()
    assert dealt.notes == ("4 natural clients make 2, 2 each",)


def test_what_cannot_be_is_refused():
    with pytest.raises(FedltError, match="no natural client has 9 images; the largest has 3"):
        natural(min_images=9)
    with pytest.raises(FedltError, match="natural needs client numbers"):
        deal(LABELS, 2, PartitionConfig(scheme="natural"), seed=1)
