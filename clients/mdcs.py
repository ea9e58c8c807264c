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
    """Experts for frequent, all and rare classes, each taught by its own weak views.

    The experts are streams with deep blocks and a cosine head of their own. Which class counts
    shift their logits says the file's ``prior``; predictions use the mean of the plain logits. A
    batch holds the weak views, then the strong ones. Nothing is kept between rounds.
    """

    traits = PluginTraits(cosine_heads=True, experts=True, masks_absent=True)

    lambdas: tuple[Finite, ...] = (-0.5, 1.0, 2.5)  # exponents of the class counts, one an expert
    kd_weight: NotNegative = 0.6  # of the self-distillation
    temperature: Positive = 1.0  # of the self-distillation
    warmup: Share = 0.05  # share of the rounds in which its weight grows linearly
    scale: Positive = 30.0  # of the cosines
    own_stages: Count = 2  # the last stages of the backbone, which every expert has for itself
    expert_width: Annotated[float, Field(ge=0.5, le=1)] = 0.75  # factor of their widths
    reduce: Literal["sum", "mean"] = "sum"  # of the experts' losses
    rotation: NotNegative = 15.0  # degrees by which a weak view is turned at most
    strong: Literal["autoaugment", "distort"] = "autoaugment"  # strong views; distort is cheaper

    def __post_init__(self) -> None:
        """Ask for two experts, and say where their mean is biased."""
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
        """Say what the views are where the file does not crop."""
        return plain_views_note("mdcs", config.local.augment, self.rotation)

    def build(self, model: Model) -> None:
        """Split the backbone and ask for a cosine head for each expert."""
        count, own, width = len(self.lambdas), self.own_stages, self.expert_width
        model.backbone = make_experts(model.backbone, count=count, width=width, own_stages=own)
        model.use_cosine_heads(self.scale, by_stream=True)
        model.name_streams(*self._names())

    def _names(self) -> tuple[str, ...]:
        """Return the experts' names: of two or three by their rising exponents, else numbered."""
        groups = {2: ("many", "few"), 3: GROUPS}.get(len(set(self.lambdas)), ())
        if len(groups) < len(self.lambdas):
            return tuple(f"expert_{k}" for k in range(1, len(self.lambdas) + 1))
        return tuple(f"{groups[sorted(self.lambdas).index(one)]}_expert" for one in self.lambdas)

    def setup(self, client: Client) -> None:
        """Make the experts' offsets (S, C)."""
        offsets = expert_offsets(client.tensors["log_prior"], self.lambdas)
        client.tensors["expert_offsets"] = offsets

    def views(
        self, client: Client, batches: Iterator[Batch], generator: torch.Generator
    ) -> Iterator[Batch]:
        """Yield the weak views, then the strong ones (2B), each with a crop and flip of its own."""
        kinds = {"augment": client.local.augment, "strong": self.strong}
        return paired_views(client.data, batches, generator, degrees=self.rotation, **kinds)

    def loss(self, logits: Tensor, batch: Batch, client: Client) -> Tensor:
        """Return DL + the grown weight times CS; a single stream's logits are not shifted."""
        streams = logits.shape[1]
        shifted = logits if streams == 1 else logits + client.tensors["expert_offsets"]
        weak, strong = shifted.chunk(2)
        taught = consistency(weak, strong, batch.labels.chunk(2)[0], tau=self.temperature)
        ready = 1.0 if self.warmup == 0 else min(client.round / (self.warmup * client.rounds), 1.0)
        total = diversity(shifted, batch.labels) + self.kd_weight * ready * taught
        return total / streams if self.reduce == "mean" else total
