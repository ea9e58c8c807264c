"""The server's party: the terms, and the class counts that the file lets a server ask for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fedlt.data.arrays import IntArray
from fedlt.federation.private_runs import plan_privacy
from fedlt.federation.terms import Terms
from fedlt.privacy.plan import PrivacyPlan

AskCounts = Callable[[NDArray[np.bool_]], IntArray | None]  # which clients (K,) -> counts (C,)


@dataclass(frozen=True, eq=False)
class ServerView(Terms):
    """The server's knowledge: no image, and no class counts of a single client."""

    ask_counts: AskCounts  # by ``prior.source``: :func:`no_counts`, or one of the classes below
    sizes: IntArray | None = None  # (K,) images of each client, told for ``sampling: by_size`` only
    images: IntArray | None = None  # (K,) the same, for the account of privacy's `sample` only

    @cached_property
    def privacy(self) -> PrivacyPlan | None:
        """The plan of a private run; None without a section ``privacy``.

        Raises:
            FedltError: If its numbers do not fit each other.
        """
        nobodys = np.ones(self.num_clients, np.int64)
        sizes = nobodys if self.images is None else self.images
        return plan_privacy(self.config, self.strategy, sizes, seed=self.seed)


def no_counts(clients: NDArray[np.bool_]) -> IntArray | None:
    """Return None: with ``prior.source: own`` the server learns no class counts."""
    return None


@dataclass(frozen=True, eq=False)
class SecureSum:
    """Class counts summed over clients (C,). A simulation computes here what clients would send."""

    _client_counts: IntArray  # (K, C)

    def __call__(self, clients: NDArray[np.bool_]) -> IntArray:
        """Return the sum over the chosen clients (K,)."""
        total: IntArray = self._client_counts[clients].sum(axis=0)
        return total


@dataclass(frozen=True, eq=False)
class AllCounts:
    """Class counts of all clients together (C,).

    With ``sum`` every client tells the server its counts before the first round. With ``oracle``
    nobody is asked: it is privileged, since no server of a federation knows them.
    """

    _class_counts: IntArray  # (C,)

    def __call__(self, clients: NDArray[np.bool_]) -> IntArray:
        """Return the counts of all clients, whichever are chosen."""
        return self._class_counts
