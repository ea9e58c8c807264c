"""Base class of client plugins with a pool of synthetic images, made from hard images.

``select`` says which images are hard:

rare             images of classes whose share is below ``tail_below`` / C
low_confidence   images whose class has a probability below ``confidence_below`` in a trained model
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from fedlt.client import ClientPlugin
from fedlt.config.ranges import Finite, NotNegative, Share, ShareBelowOne
from fedlt.errors import FedltError
from fedlt.generators import make_generator
from fedlt.generators.filling import filled_pool
from fedlt.generators.generator import Generator, PoolRequest, chosen_sources, tail_sources
from fedlt.generators.pool import Pool, load_pool
from fedlt.generators.selection import confidences
from fedlt.generators.tail import HARD, added_images, check_levels, use_pool

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fedlt.data.preparation import Preparation


@dataclass(frozen=True)
class PoolPlugin(ClientPlugin):
    """Client plugin that trains on synthetic images, made before the run or loaded from files."""

    generator: str | dict[str, object] = "federated_ddpm"  # name, or mapping of name and settings
    pool_path: str = ""  # npz file or folder of existing images; replaces the generator
    levels: tuple[ShareBelowOne, ...] = ()  # ascending; (): the generator's usual, or the pool's
    min_score: Finite | None = None  # images below are left out; None: the generator's default
    select: Literal["rare", "low_confidence"] = "rare"  # rule for hard images
    tail_below: NotNegative = 0.17  # rare: tail classes are smaller than this times the mean size
    confidence_below: Share = 0.5  # low_confidence: an image is hard below this probability
    classifier_path: str = ""  # low_confidence: directory of the run that trained the model

    def __post_init__(self) -> None:
        """Refuse hyperparameters that contradict each other."""
        if bool(self.classifier_path) != (self.select == "low_confidence"):
            reason = "the directory of a finished run, whose model says how likely each class is"
            raise ValueError(
                f"classifier_path: select low_confidence, and no other, needs {reason}; it is "
                f"{self.classifier_path!r} with select {self.select!r}"
            )
        check_levels(self.levels)
        self.made_by()

    @property
    def uses_pool(self) -> bool:
        """Whether the plugin uses synthetic images."""
        return True

    @property
    def holds_out(self) -> bool:
        """Whether one image per level is held out for each source that has all levels."""
        return False

    @property
    def reference(self) -> str:  # type: ignore[override]  # of an object, not a class
        """Name of the privileged information that the generator uses; empty for a federated one."""
        made = self.made_by()
        return "" if made is None else made.reference

    def made_by(self) -> Generator | None:
        """Return the generator of the pool; None if the pool is loaded or not used.

        Raises:
            ValueError: If the generator's name or a setting is not valid.
        """
        return make_generator(self.generator, needed=not self.pool_path and self.uses_pool)

    def hard(self, preparation: Preparation) -> NDArray[np.bool_] | None:
        """Return the mask (N,) of hard training images; None: images of tail classes."""
        if self.select == "rare":
            return None
        return confidences(preparation, self.classifier_path) < self.confidence_below

    def sources(
        self, preparation: Preparation, hard: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.int64], ...]:
        """Return the rows of each client's hard images."""
        if hard is None:
            return tail_sources(preparation, self.tail_below)
        return chosen_sources(preparation, hard)

    def pool(self, preparation: Preparation) -> Pool:
        """Return the pool, loaded or made.

        Raises:
            FedltError: If the pool cannot be loaded, or there is no hard image to make one from.
        """
        return self._pool(preparation, None if self.pool_path else self.hard(preparation))

    def _pool(self, preparation: Preparation, hard: NDArray[np.bool_] | None) -> Pool:
        made = self.made_by()
        if made is None:
            return load_pool(self.pool_path)
        sources = self.sources(preparation, hard)
        if not sum(map(len, sources)):
            what, option = (
                ("image of a tail class", "tail_below")
                if hard is None
                else ("image of low confidence", "confidence_below")
            )
            raise FedltError(
                f"no client holds an {what}, so there is nothing to generate; raise client.{option}"
            )
        wanted = tuple(round(level, 6) for level in self.levels) or made.usual_levels
        return filled_pool(made, PoolRequest(preparation, sources, wanted))

    def prepare(self, preparation: Preparation) -> Mapping[str, NDArray[np.generic]]:
        """Return arrays for all clients: the mask of hard images, and the pool's usable images.

        Raises:
            FedltError: If the pool or the classifier cannot be loaded, made or matched to the data.
        """
        hard = self.hard(preparation)
        known = {} if hard is None else {HARD: hard}
        if not self.uses_pool:
            return known
        least, made = self.min_score, self.made_by()
        if least is None and made is not None:
            least = made.least_score
        pool = self._pool(preparation, hard)
        try:
            used = use_pool(pool, preparation.data, levels=self.levels, min_score=least)
        except FedltError as error:
            where = f"generator {made.name}" if made is not None else repr(self.pool_path)
            raise FedltError(f"client: pool of {where}: {error}") from error
        images = np.concatenate(self.sources(preparation, hard))
        added = added_images(used, images, holds_out=self.holds_out)
        if line := self._addition(len(pool), added, len(images)):
            preparation.progress.note(line)
        return {**known, **used}

    def _addition(self, size: int, added: int, hard: int) -> str:
        """Return a note if some images of the pool are not used for training; else ""."""
        if added:
            return "" if added == size else f"pool: {added} of its {size} images are trained on"
        if self.select == "rare":
            which = (
                f"of a class that is rare for its client (client.tail_below {self.tail_below:g})"
            )
        else:
            which = f"of low confidence (client.confidence_below {self.confidence_below:g})"
        why = (
            f"none is made from one of the {hard} images {which}"
            if hard
            else f"no image is {which}"
        )
        more = (
            ", or all of them are held out to measure progress" if hard and self.holds_out else ""
        )
        return f"pool: its {size} images add nothing: {why}{more}"
