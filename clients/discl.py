"""DisCL: Liang et al., Diffusion curriculum: Synthetic-to-real data curriculum, ICCV 2025.

https://arxiv.org/abs/2410.13674, algorithms 1 and 2. The pool of synthetic images is made before
the run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from fedlt.client import Batch, ClientPlugin
from fedlt.data.curriculum import most_progress, stage_of
from fedlt.data.pool import load_pool
from fedlt.data.tail import LEVELS, TailData, true_probability, use_pool
from fedlt.errors import FedltError
from fedlt.rng import torch_generator

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fedlt.client import Client
    from fedlt.data import FederatedData

__all__ = ["DisCL"]


@dataclass(frozen=True)
class DisCL(ClientPlugin):
    """Fills tail classes with synthetic images, level by level over the rounds, then real ones.

    ``oversample`` is the control: the same epochs, filled with real tail images alone. A client
    without tail images trains as without the plugin.
    """

    pool_path: str = ""  # npz file or folder; oversample needs none
    curriculum: Literal[
        "diverse_to_specific", "specific_to_diverse", "all_levels", "adaptive", "oversample"
    ] = "diverse_to_specific"
    levels: tuple[float, ...] = ()  # those of the pool that are used; none: all
    min_score: float | None = None  # images with a lower score are left out
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

    def prepare(self, data: FederatedData) -> Mapping[str, NDArray[np.generic]]:
        """Load the pool and choose what the run uses of it."""
        if self.curriculum == "oversample":
            return {}
        if not self.pool_path:
            raise FedltError(
                f"client.pool_path is missing: curriculum {self.curriculum} needs a pool of "
                "synthetic images; oversample needs none"
            )
        pool = load_pool(self.pool_path)
        try:
            return use_pool(pool, data, levels=self.levels, min_score=self.min_score)
        except FedltError as error:
            raise FedltError(f"client: pool {self.pool_path!r}: {error}") from error

    def batches(self, client: Client, epoch: int) -> Iterator[Batch]:
        """Yield one epoch: all tail images, what fills them up, and a part of the others."""
        # Read for every client, so that an engine which stacks them refuses before the run.
        judge = client.model if self.curriculum == "adaptive" else None
        own = TailData.of(client, self.tail_below)
        if own is None:
            yield from super().batches(client, epoch)
            return
        keys = (client.round, client.cid, epoch)
        generator = torch_generator(client.seed, "curriculum", *keys)
        steps, levels = int(self.until * client.rounds + 1e-9), len(client.material.get(LEVELS, ()))
        stage = stage_of(client.round - 1, steps, levels) if levels else None
        synthetic = torch.zeros(0, dtype=torch.int64)
        if stage is not None and judge is not None:
            yield from self._progress(client, epoch, own, levels, generator)
            return
        if stage is not None:
            shown = {"all_levels": None, "specific_to_diverse": levels - 1 - stage}
            synthetic = own.synthetic(shown.get(self.curriculum, stage))
        yield from own.batches(client, epoch, self._rows(client, own, synthetic, generator))

    def _rows(
        self, client: Client, own: TailData, synthetic: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        return own.draw(client, synthetic, keep=self.keep, cap=self.cap, generator=generator)

    def _progress(
        self, client: Client, epoch: int, own: TailData, levels: int, generator: torch.Generator
    ) -> Iterator[Batch]:
        """Yield a real epoch, then one of the level that it helped most (algorithm 2)."""
        held_out = own.held_out(levels)
        before = true_probability(client, own, held_out) if len(held_out) else []
        real = torch.zeros(0, dtype=torch.int64)
        yield from own.batches(client, epoch, self._rows(client, own, real, generator))
        after = true_probability(client, own, held_out) if len(held_out) else []
        stage = most_progress(before, after) if len(held_out) else None
        synthetic = own.synthetic(stage, without=held_out.flatten())
        yield from own.batches(client, epoch, self._rows(client, own, synthetic, generator))
