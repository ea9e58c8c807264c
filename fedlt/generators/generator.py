"""The contract of a generator, which fills a pool of synthetic images before a run.

    request   source images and levels
    groups    clients that train a generator together, and the sources it is applied to
    open      train or load the generator of one group
    maker     sources and level -> images and scores

A pool is filled part by part (fedlt/generators/filling.py). A client's synthetic images are made
from the client's own sources, and no other client sees them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fedlt.config.ranges import Checked, Count
from fedlt.data.preparation import Preparation

if TYPE_CHECKING:
    from fedlt.client import ClientPlugin
    from fedlt.generators.pool import Pool


TimesEight = Annotated[int, Field(ge=8, multiple_of=8)]  # channels in 8 groups, or pixels


@dataclass(frozen=True, eq=False)
class PoolRequest:
    """Request for a pool: source images of each client, and levels."""

    preparation: Preparation
    sources: tuple[NDArray[np.int64], ...]  # by client: rows in the training images
    levels: tuple[float, ...]  # guidance by the source, ascending, in [0, 1)

    @property
    def every_source(self) -> NDArray[np.int64]:
        """Rows of all sources, ascending."""
        return np.sort(np.concatenate(self.sources))


@dataclass(frozen=True, eq=False)
class ClientGroup:
    """Clients that train one generator together, and the sources it is applied to."""

    clients: tuple[NDArray[np.int64], ...]  # by client: rows in the training images
    sources: NDArray[np.int64]  # rows in the training images


@dataclass(frozen=True, eq=False)
class Items:
    """List of images to make at one level."""

    level: float
    sources: NDArray[np.int64]  # (m,) rows in the training images
    copies: NDArray[np.int64]  # (m,) number of the image among those of its source, from 0


# items -> uint8 images (m, Ch, H, W) of the training images' shape, and scores (m,)
Maker = Callable[[Items], tuple[NDArray[np.uint8], NDArray[np.float64]]]


@dataclass(frozen=True)
class Generator(Checked, ABC):
    """Base class of generators of synthetic images; the fields of a subclass are its settings."""

    name: ClassVar[str]
    least_score: ClassVar[float]  # default of ``min_score``: images below are left out
    usual_levels: ClassVar[tuple[float, ...]] = (0.0, 0.1, 0.3, 0.5)
    reference: ClassVar[str] = ""  # privileged information it uses (oracles); "": federated
    per_image: Count = 4  # images made from a source at each level
    batch: Count = 64  # images made at once

    def settings(self) -> Mapping[str, object]:
        """Return all settings that change the images, by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def groups(self, request: PoolRequest) -> Sequence[ClientGroup]:
        """Return the groups of clients that train together; by default one group of all clients."""
        return [ClientGroup(request.preparation.clients, request.every_source)]

    def rounds_of(self, group: ClientGroup) -> int:
        """Return the number of ``tick`` calls in :meth:`open`; by default 0, without training."""
        return 0

    def announce(self, request: PoolRequest, groups: Sequence[ClientGroup]) -> str:
        """Return a note for the user before the work begins, such as the expected time."""
        return ""

    @abstractmethod
    def open(
        self, request: PoolRequest, group: ClientGroup, folder: Path, tick: Callable[[], None]
    ) -> Maker:
        """Return a maker of a group's images, after training or loading.

        Args:
            request: The request for a pool.
            group: One of :meth:`groups`.
            folder: Folder of this group, which may hold saved training, to continue after a stop.
            tick: Function to call after each of the ``rounds_of`` rounds.

        Raises:
            FedltError: If training is impossible or a file cannot be loaded.
        """


def find_pool_maker(plugin: ClientPlugin) -> Callable[[Preparation], Pool] | None:
    """Return the function of a client plugin that makes or loads its pool; None without a pool."""
    for part in plugin.parts:
        if callable(found := getattr(part, "pool", None)):
            maker: Callable[[Preparation], Pool] = found
            return maker
    return None


def chosen_sources(
    preparation: Preparation, is_hard: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], ...]:
    """Return the rows of each client's hard images, for a mask ``is_hard`` (N,) of images."""
    return tuple(own[is_hard[own]] for own in preparation.clients)


def tail_sources(preparation: Preparation, tail_below: float) -> tuple[NDArray[np.int64], ...]:
    """Return the rows of each client's images of its tail classes.

    Args:
        preparation: The federation before its first round.
        tail_below: Threshold: a class is in the tail if its share is below ``tail_below`` / C.
    """
    labels, classes = preparation.data.train_labels, preparation.data.num_classes
    rare = preparation.shares < tail_below / classes
    return tuple(
        own[is_tail[labels[own]]] for own, is_tail in zip(preparation.clients, rare, strict=True)
    )
