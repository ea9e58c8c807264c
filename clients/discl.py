"""DisCL: Liang et al., Diffusion curriculum: Synthetic-to-real data curriculum, ICCV 2025.

https://arxiv.org/abs/2410.13674, algorithms 1 and 2. The pool of synthetic images is made before
the run (fedlt/generators), or given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

from fedlt.client import Batch, ClientPlugin
from fedlt.data.curriculum import stage_of
from fedlt.data.pool import Pool, load_pool
from fedlt.data.tail import LEVELS, TailData, check_levels, progress_epochs, use_pool
from fedlt.errors import FedltError
from fedlt.generators import make_generator
from fedlt.generators.filling import tail_pool
from fedlt.rng import torch_generator

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fedlt.client import Client
    from fedlt.preparation import Preparation

__all__ = ["DisCL"]


@dataclass(frozen=True)
class DisCL(ClientPlugin):
    """Fills tail classes with synthetic images, level by level over the rounds, then real ones.

    ``oversample`` is the control: the same epochs, filled with real tail images alone. A client
    without tail images trains as without the plugin.
    """

    control: ClassVar[Mapping[str, object]] = {
        "curriculum": "oversample",
        **dict.fromkeys(("generator", "pool_path", "levels", "min_score")),  # it reads none
    }

    generator: str | dict[str, object] = "federated_ddpm"  # its name, or name and settings
    pool_path: str = ""  # npz file or folder: images that are there, instead of a generator
    curriculum: Literal[
        "diverse_to_specific", "specific_to_diverse", "all_levels", "adaptive", "oversample"
    ] = "diverse_to_specific"
    levels: tuple[float, ...] = ()  # ascending; none: the generator's usual ones, or the pool's
    min_score: float | None = None  # lower scores are left out; none: as the generator says
    until: float = 60 / 65  # share of the rounds that the curriculum takes
    tail_below: float = 0.17  # a class is of the tail below this times the mean class size
    keep: float = 0.3  # share of the other images that an epoch keeps
    cap: float = 3.0  # most further tail images, in real ones

    def __post_init__(self) -> None:
        """Check the hyperparameters."""
        for name in ("until", "keep"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: {getattr(self, name)} is not in [0, 1]")
        for name in ("tail_below", "cap"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: {getattr(self, name)} is below 0")
        check_levels(self.levels)
        make_generator(self.generator, needed=self._generates)

    @property
    def _generates(self) -> bool:
        return not self.pool_path and self.curriculum != "oversample"

    @property
    def reference(self) -> str:  # type: ignore[override]  # of an object, not a class
        """What the generator is, if no federation could have it."""
        made = make_generator(self.generator, needed=self._generates)
        return "" if made is None else made.reference

    def pool(self, setting: Preparation) -> Pool:
        """Return the pool, loaded or made."""
        made = make_generator(self.generator, needed=self._generates)
        if made is None:
            return load_pool(self.pool_path)
        return tail_pool(setting, made, levels=self.levels, tail_below=self.tail_below)

    def prepare(self, setting: Preparation) -> Mapping[str, NDArray[np.generic]]:
        """Choose what the run uses of the pool; the control uses none."""
        if self.curriculum == "oversample":
            return {}
        least, made = self.min_score, make_generator(self.generator, needed=self._generates)
        if least is None and made is not None:
            least = made.least_score
        pool = self.pool(setting)
        try:
            return use_pool(pool, setting.data, levels=self.levels, min_score=least)
        except FedltError as error:
            where = f"generator {made.name}" if made is not None else repr(self.pool_path)
            raise FedltError(f"client: pool of {where}: {error}") from error

    def batches(self, client: Client, epoch: int) -> Iterator[Batch]:
        """Yield one epoch: all tail images, what fills them up, and a part of the others."""
        # Read for every client, so that an engine which stacks them refuses before the run.
        judge = client.model if self.curriculum == "adaptive" else None
        own = TailData.of(client, self.tail_below)
        if own is None:
            yield from super().batches(client, epoch)
            return
        generator = torch_generator(client.seed, "curriculum", client.round, client.cid, epoch)
        shown = partial(own.epoch, client, epoch, self.keep, self.cap, generator)
        steps, levels = int(self.until * client.rounds + 1e-9), len(client.material.get(LEVELS, ()))
        stage = stage_of(client.round - 1, steps, levels) if levels else None
        if stage is None:
            yield from shown(own.none())
        elif judge is not None:
            yield from progress_epochs(client, own, levels, shown)
        else:
            choice = {"all_levels": None, "specific_to_diverse": levels - 1 - stage}
            yield from shown(own.synthetic(choice.get(self.curriculum, stage)))
