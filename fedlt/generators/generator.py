"""The contract of a generator: what fills a pool of synthetic images before a run.

    request   which source images, at which levels, how many copies of each
    groups    who learns the generator together, and which of the sources it is used on
    open      learn or load what makes the images of one group
    maker     sources, level, noise -> images and scores

A pool is filled part by part (fedlt/generators/filling.py); a client's images are made from its own
sources, and no other client sees them.
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
    """What is wanted."""

    preparation: Preparation
    sources: tuple[NDArray[np.int64], ...]  # of each client, positions in the training images
    levels: tuple[float, ...]  # ascending, in [0, 1)

    @property
    def every_source(self) -> NDArray[np.int64]:
        """All sources, ascending."""
        return np.sort(np.concatenate(self.sources))


@dataclass(frozen=True, eq=False)
class ClientGroup:
    """Who learns together, and which sources the result is used on."""

    clients: tuple[NDArray[np.int64], ...]  # each one's images, positions in the training images
    sources: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Items:
    """Images to be made at one level."""

    level: float
    sources: NDArray[np.int64]  # (m,) positions in the training images
    copies: NDArray[np.int64]  # (m,) which of several images of a source, from 0


# uint8 images (m, Ch, H, W) as the training images are, and scores (m,)
Maker = Callable[[Items], tuple[NDArray[np.uint8], NDArray[np.float64]]]


@dataclass(frozen=True)
class Generator(Checked, ABC):
    """Makes synthetic images from real ones. A frozen dataclass: its fields are its settings."""

    name: ClassVar[str]
    least_score: ClassVar[float]  # images with a lower score are left out, unless asked otherwise
    usual_levels: ClassVar[tuple[float, ...]] = (0.0, 0.1, 0.3, 0.5)
    reference: ClassVar[str] = ""  # of one that no federation could have: what it is
    per_image: Count = 4  # images of a source at each level
    batch: Count = 64  # images that are made at once

    def settings(self) -> Mapping[str, object]:
        """Return all that the images depend on, besides data and request: by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def groups(self, request: PoolRequest) -> Sequence[ClientGroup]:
        """Return who learns together: all clients, by default."""
        return [ClientGroup(request.preparation.clients, request.every_source)]

    def rounds_of(self, group: ClientGroup) -> int:
        """Return how often :meth:`open` calls ``tick``: nothing is learnt, by default."""
        return 0

    def announce(self, request: PoolRequest, groups: Sequence[ClientGroup]) -> str:
        """Return what a user should know before it begins, such as its steps and their time."""
        return ""

    @abstractmethod
    def open(
        self, request: PoolRequest, group: ClientGroup, folder: Path, tick: Callable[[], None]
    ) -> Maker:
        """Learn or load what makes the images of a group.

        Args:
            request: What is wanted.
            group: One of :meth:`groups`.
            folder: Of this group's own, where learning may be kept, to go on from after a stop.
            tick: To be called after each of ``rounds_of`` steps.

        Raises:
            FedltError: If it cannot be had.
        """


def find_pool_maker(plugin: ClientPlugin) -> Callable[[Preparation], Pool] | None:
    """Return what makes or loads the pool of a client plugin; None where it has none."""
    for part in plugin.parts:
        if callable(found := getattr(part, "pool", None)):
            maker: Callable[[Preparation], Pool] = found
            return maker
    return None


def chosen_sources(
    preparation: Preparation, is_hard: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], ...]:
    """Return each client's images among those chosen (N,): positions in the training images."""
    return tuple(own[is_hard[own]] for own in preparation.clients)


def tail_sources(preparation: Preparation, tail_below: float) -> tuple[NDArray[np.int64], ...]:
    """Return each client's images of its tail classes: positions in the training images.

    Args:
        preparation: The federation.
        tail_below: A class is of the tail if its share is below this over C.
    """
    labels, classes = preparation.data.train_labels, preparation.data.num_classes
    rare = preparation.shares < tail_below / classes
    return tuple(
        own[is_tail[labels[own]]] for own, is_tail in zip(preparation.clients, rare, strict=True)
    )
