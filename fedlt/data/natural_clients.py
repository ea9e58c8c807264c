"""Clients by nature: the users, hospitals or cameras of a data set become clients of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedlt.data.partition import NOBODY
from fedlt.errors import FedltError
from fedlt.rng import numpy_generator


@dataclass(frozen=True, eq=False)
class NaturalClients:
    """The users of a data set as clients of a run; a user is one client number of the data set."""

    cid_of: NDArray[np.int64]  # (U,) client of each user; NOBODY: the user is dropped or absent
    num_clients: int  # K
    min_images: int  # users with fewer training images are dropped

    def cids_of(self, users: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the clients of images (M,) from their users; NOBODY where there is none."""
        known = (users >= 0) & (users < len(self.cid_of))
        cids = np.full(len(users), NOBODY)
        cids[known] = self.cid_of[users[known]]
        return cids

    def names(self, user_names: Sequence[str]) -> tuple[str, ...]:
        """Return the names of the clients (K,), joined by " + " where users were put together.

        Args:
            user_names: (U,); (): names are unknown, and the result is ().
        """
        if not user_names:
            return ()
        parts: list[list[str]] = [[] for _ in range(self.num_clients)]
        for name, cid in zip(user_names, self.cid_of.tolist(), strict=False):
            if cid != NOBODY:
                parts[cid].append(name)
        return tuple(" + ".join(part) for part in parts)

    def notes(self, users: NDArray[np.int64]) -> tuple[str, ...]:
        """Return lines about dropped users and images, and about users per client.

        Args:
            users: (N,) user of each training image.
        """
        sizes = np.bincount(users[users != NOBODY], minlength=len(self.cid_of))
        small = (sizes > 0) & (self.cid_of == NOBODY)
        lines = []
        if small.any():
            lines.append(
                f"{int(small.sum()):,} of {int((sizes > 0).sum()):,} natural clients have fewer "
                f"than {self.min_images} images and are dropped, with {int(sizes[small].sum()):,} "
                f"of {len(users):,} images"
            )
        if unowned := int((users == NOBODY).sum()):
            lines.append(
                f"{unowned:,} of {len(users):,} training images belong to no client and are not "
                "used"
            )
        kept = np.bincount(self.cid_of[self.cid_of != NOBODY], minlength=self.num_clients)
        if kept.max() > 1:
            low, high = int(kept.min()), int(kept.max())
            span = f"{low}" if low == high else f"{low} to {high}"
            users_kept = int(kept.sum())
            lines.append(f"{users_kept:,} natural clients make {self.num_clients:,}, {span} each")
        return tuple(lines)


def natural_clients(
    users: NDArray[np.int64], *, min_images: int, merge: int, seed: int
) -> NaturalClients:
    """Return the clients that the users of the training images make.

    Users with fewer than ``min_images`` training images are dropped first. Without ``merge`` the
    clients are the users that are left, in the order of their numbers. Otherwise the U users that
    are left make ``ceil(U / merge)`` clients: whole users, dealt at random, at most ``merge`` to a
    client, in numbers that differ by at most one.

    Args:
        users: (N,) user of each training image, :data:`NOBODY` for none.
        min_images: Smallest number of training images of a user.
        merge: Users that become one client.
        seed: The run's seed; read only if ``merge`` is above 1.

    Raises:
        FedltError: If no user has enough images.
    """
    sizes = np.bincount(users[users != NOBODY])
    kept = np.flatnonzero(sizes >= max(min_images, 1))
    if not len(kept):
        raise FedltError(
            f"partition.min_images: no natural client has {min_images} images; the largest has "
            f"{int(sizes.max(initial=0))}"
        )
    clients = -(-len(kept) // merge)
    cids = np.arange(clients)
    if merge > 1:
        rng = numpy_generator(seed, "natural clients")
        kept, cids = rng.permutation(kept), rng.permutation(clients)
    cid_of = np.full(len(sizes), NOBODY)
    cid_of[kept] = cids[np.arange(len(kept)) % clients]
    return NaturalClients(cid_of, clients, min_images)
