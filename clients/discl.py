"""DisCL: Liang et al., Diffusion curriculum: Synthetic-to-real data curriculum, ICCV 2025.

https://arxiv.org/abs/2410.13674, algorithms 1 and 2. A generator (fedlt/generators) makes the pool
of synthetic images before the run, or the user gives a pool.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from fedlt.client import PluginTraits
from fedlt.config.ranges import NotNegative, Share
from fedlt.generators.curriculum import stage_of
from fedlt.generators.plugin import PoolPlugin
from fedlt.generators.tail import LEVELS, TailData, progress_epochs
from fedlt.rng import torch_generator

if TYPE_CHECKING:
    from fedlt.client import Batch, Client


@dataclass(frozen=True)
class DisCL(PoolPlugin):
    """Adds synthetic images to hard ones, one guidance level after another, then only real ones.

    Hard images are those of rare classes, or those of low confidence (``select``). The control run,
    ``oversample``, has the same epochs with repeated real images in place of synthetic ones. A
    client without hard images trains as without the plugin.
    """

    traits = PluginTraits(
        control={
            "curriculum": "oversample",
            **dict.fromkeys(("generator", "pool_path", "levels", "min_score")),  # not read then
        }
    )

    curriculum: Literal[
        "diverse_to_specific", "specific_to_diverse", "all_levels", "adaptive", "oversample"
    ] = "diverse_to_specific"
    until: Share = 60 / 65  # share of the rounds that the curriculum takes
    keep: Share = 0.3  # select rare: share of the other images that an epoch keeps
    cap: NotNegative = 3.0  # added images per real hard image, at most

    @property
    def uses_pool(self) -> bool:
        """Whether synthetic images are used; False for the control run."""
        return self.curriculum != "oversample"

    @property
    def holds_out(self) -> bool:
        """Whether images are held out to measure progress (adaptive curriculum)."""
        return self.curriculum == "adaptive"

    def batches(self, client: Client, epoch: int) -> Iterator[Batch]:
        """Yield one epoch: all hard images, images added to them, and a part of the others."""
        # Reading the model for every client lets the stacked engine refuse before the run.
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
            repeats = not self.uses_pool and client.round <= steps
            yield from shown(own.none(), repeats=repeats)
        elif judge is not None:
            yield from progress_epochs(client, own, levels, shown)
        else:
            choice = {"all_levels": None, "specific_to_diverse": levels - 1 - stage}
            yield from shown(own.synthetic(choice.get(self.curriculum, stage)))
