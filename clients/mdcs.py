"""MDCS: Zhao et al., More diverse experts with consistency self-distillation, ICCV 2023.

https://arxiv.org/abs/2308.09922
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from fedlt.client import ClientPlugin, PluginTraits
from fedlt.config.ranges import Count, Finite, NotNegative, Positive, Share
from fedlt.data.shots import GROUPS
from fedlt.data.views import paired_views, plain_views_note
from fedlt.losses import consistency, diversity, expert_offsets
from fedlt.models import make_experts

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from torch import Tensor

    from fedlt.client import Batch, Client
    from fedlt.config import Config
    from fedlt.models import Model


@dataclass(frozen=True)
class Mdcs(ClientPlugin):
    """Experts for frequent, all and rare classes; weak views teach strong views in each expert.

    Experts are streams with their own last blocks and cosine head. Their logits are shifted by the
    class counts of the file's ``prior``; predictions use the mean of the plain logits. A batch
    holds the weak views, then the strong ones. Clients keep nothing between rounds.
    """

    traits = PluginTraits(cosine_heads=True, experts=True, masks_absent=True, views_images=True)

    lambdas: tuple[Finite, ...] = (-0.5, 1.0, 2.5)  # exponent of the class counts for each expert
    kd_weight: NotNegative = 0.6  # weight of the self-distillation
    temperature: Positive = 1.0  # temperature of the self-distillation
    warmup: Share = 0.05  # share of the rounds in which kd_weight grows linearly
    scale: Positive = 30.0  # factor of the cosines
    own_stages: Count = 2  # last stages of the backbone that each expert has of its own
    expert_width: Annotated[float, Field(ge=0.5, le=1)] = 0.75  # factor of the width of these
    reduce: Literal["sum", "mean"] = "sum"  # over the experts' losses
    rotation: NotNegative = 15.0  # largest rotation of a weak view, in degrees
    strong: Literal["autoaugment", "distort"] = "autoaugment"  # strong views; distort is cheaper

    def __post_init__(self) -> None:
        """Refuse fewer than two experts; warn if the mean of the experts is biased."""
        if len(self.lambdas) < 2:
            raise ValueError(f"lambdas: {list(self.lambdas)} are not at least 2 experts")
        mean = sum(self.lambdas) / len(self.lambdas)
        if not math.isclose(mean, 1.0, abs_tol=1e-6):
            logging.getLogger(__name__).warning(
                "mdcs: the mean of lambdas %s is %.3g, not 1: the mean of the experts is biased",
                list(self.lambdas),
                mean,
            )

    def note(self, config: Config) -> str:
        """Return a line about the weak views where the file does not crop; else empty."""
        return plain_views_note("mdcs", config.local.augment, self.rotation)

    def build(self, model: Model) -> None:
        """Split the backbone into experts; linear heads become a cosine head per expert."""
        count, own, width = len(self.lambdas), self.own_stages, self.expert_width
        model.backbone = make_experts(model.backbone, count=count, width=width, own_stages=own)
        model.use_cosine_heads(self.scale, by_stream=True)
        model.name_streams(*self._names())

    def _names(self) -> tuple[str, ...]:
        """Return the experts' names: by exponent for two or three experts, else numbered."""
        groups = {2: ("many", "few"), 3: GROUPS}.get(len(set(self.lambdas)), ())
        if len(groups) < len(self.lambdas):
            return tuple(f"expert_{k}" for k in range(1, len(self.lambdas) + 1))
        return tuple(f"{groups[sorted(self.lambdas).index(one)]}_expert" for one in self.lambdas)

    def setup(self, client: Client) -> None:
        """Compute the offsets (S, C) of the experts' logits."""
        offsets = expert_offsets(client.tensors["log_prior"], self.lambdas)
        client.tensors["expert_offsets"] = offsets

    def views(
        self, client: Client, batches: Iterator[Batch], generator: torch.Generator
    ) -> Iterator[Batch]:
        """Yield batches (2B) of weak views, then strong views; each has its own crop and flip."""
        kinds = {"augment": client.local.augment, "strong": self.strong}
        return paired_views(client.data, batches, generator, degrees=self.rotation, **kinds)

    def loss(self, logits: Tensor, batch: Batch, client: Client) -> Tensor:
        """Return diversity loss + warmed-up weight * self-distillation.

        Logits of a single stream, such as a frozen classifier's, are not shifted.
        """
        streams = logits.shape[1]
        shifted = logits if streams == 1 else logits + client.tensors["expert_offsets"]
        weak, strong = shifted.chunk(2)
        taught = consistency(weak, strong, batch.labels.chunk(2)[0], tau=self.temperature)
        ready = 1.0 if self.warmup == 0 else min(client.round / (self.warmup * client.rounds), 1.0)
        total = diversity(shifted, batch.labels) + self.kd_weight * ready * taught
        return total / streams if self.reduce == "mean" else total
