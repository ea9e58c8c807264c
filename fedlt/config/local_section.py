"""The section ``local``: training on one client, and the schedule of its learning rates."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fedlt.config.ranges import Count, Epochs, NotNegative, Positive, Share
from fedlt.config.section import Section


class ScheduleConfig(Section):
    """Schedule of the learning rates over the rounds of a run, in shares of the rounds."""

    warmup: Share = 0.0  # in which the rates grow linearly to their values
    drops: tuple[Share, ...] = ()  # after each share the rates are multiplied by `factor`
    factor: Annotated[float, Field(strict=True, gt=0, le=1)] = 0.1

    def at(self, round: int, rounds: int) -> float:
        """Return the factor of the learning rates in ``round`` (from 1) of ``rounds``."""
        grown = min(round / (self.warmup * rounds), 1.0) if self.warmup else 1.0
        passed = sum(round > drop * rounds + 1e-9 for drop in self.drops)
        return grown * self.factor**passed


class LocalConfig(Section):
    """Training on one client."""

    epochs: Annotated[Epochs, Field(ge=1)] = 1  # passes over the client's images per round
    batch_size: Count = 32
    optimizer: Literal["sgd", "adamw"] = "sgd"  # adamw has its own betas: momentum is sgd's
    lr: Positive = 0.1
    head_lr: Positive | None = None  # of every head; None: lr
    momentum: Annotated[float, Field(strict=True, ge=0, lt=1)] = 0.0
    weight_decay: NotNegative = 0.0
    sam_rho: NotNegative = 0.0  # sharpness-aware steps: distance uphill; 0: plain steps
    augment: Literal["none", "crop_flip", "crop"] = "none"
    precision: Literal["float32", "bfloat16"] = "float32"  # of activations; weights stay float32
    schedule: ScheduleConfig = ScheduleConfig()  # of both learning rates

    def at(self, round: int, rounds: int) -> LocalConfig:
        """Return this section with the learning rates of ``round``."""
        factor = self.schedule.at(round, rounds)
        if factor == 1:
            return self
        rates = {"lr": self.lr, "head_lr": self.head_lr}
        scaled = {name: factor * rate for name, rate in rates.items() if rate is not None}
        return self.model_copy(update=scaled)
