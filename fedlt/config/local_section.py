"""The section ``local``: training on one client, and the schedule of its learning rates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StrictBool, model_validator

from fedlt.config.ranges import Count, Epochs, NotNegative, Positive, Share, ShareAboveZero
from fedlt.config.section import Section


class ScheduleConfig(Section):
    """Schedule of the learning rates over the rounds of a run: the product of its parts.

    ``schedule: cosine`` is short for ``schedule: {cosine: true}``.
    """

    warmup: Share = 0.0  # share of the rounds in which the rates grow linearly to their values
    drops: tuple[Share, ...] = ()  # after each share the rates are multiplied by `factor`
    factor: ShareAboveZero = 0.1
    decay: ShareAboveZero = 1.0  # factor of the rates from each round to the next
    cosine: StrictBool = False  # the rates fall along half a cosine from the end of the warm-up

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:  # noqa: ANN401 (whatever the file holds)
        return {"cosine": True} if value == "cosine" else value

    @model_validator(mode="after")
    def _fits(self) -> Self:
        others = [("drops", bool(self.drops)), ("decay", self.decay != 1)]
        for name, is_given in others:
            if self.cosine and is_given:
                raise ValueError(f"cosine: the rates fall along a cosine or by {name}, not by both")
        if self.cosine and self.warmup == 1:
            raise ValueError("cosine: warmup: 1 leaves no round in which the rates can fall")
        return self

    def at(self, round: int, rounds: int) -> float:
        """Return the factor of the learning rates in ``round`` (from 1) of ``rounds``."""
        grown = min(round / (self.warmup * rounds), 1.0) if self.warmup else 1.0
        passed = sum(round > drop * rounds + 1e-9 for drop in self.drops)
        factor = grown * self.factor**passed
        if self.cosine:
            return factor * self._cosine(round, rounds)
        return factor * self.decay ** (round - 1) if self.decay != 1 else factor

    def _cosine(self, round: int, rounds: int) -> float:
        """Return (1 + cos(pi t)) / 2, t the share of the rounds after the warm-up that are over.

        The first round with grown rates counts as the first of these rounds, so its factor is 1.
        """
        first = max(1, math.ceil(self.warmup * rounds - 1e-9))
        return (1 + math.cos(math.pi * max(0, round - first) / (rounds - first + 1))) / 2


class LocalConfig(Section):
    """Training on one client."""

    epochs: Annotated[Epochs, Field(ge=1)] | None = 1  # passes over the client's images per round
    steps: Count | None = None  # instead of epochs: steps per round, over reshuffled passes
    batch_size: Count = 32
    optimizer: Literal["sgd", "adamw"] = "sgd"  # adamw has its own betas: momentum is sgd's
    lr: Positive = 0.1
    head_lr: Positive | None = None  # of every head; None: lr
    momentum: Annotated[float, Field(strict=True, ge=0, lt=1)] = 0.0
    nesterov: StrictBool = False  # Nesterov's momentum, in PyTorch's form
    weight_decay: NotNegative = 0.0
    clip: Positive | None = None  # longest gradient, over all parameters in training; None: any
    sam_rho: NotNegative = 0.0  # sharpness-aware steps: distance uphill; 0: plain steps
    augment: Literal["none", "crop_flip", "crop", "imagenet"] = "none"
    precision: Literal["float32", "bfloat16"] = "float32"  # of activations; weights stay float32
    schedule: ScheduleConfig = ScheduleConfig()  # of both learning rates

    @model_validator(mode="before")
    @classmethod
    def _counted(cls, value: Any) -> Any:  # noqa: ANN401 (whatever the file holds)
        if isinstance(value, Mapping) and value.get("steps") is not None:
            return {"epochs": None, **value}
        return value

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.epochs is None and self.steps is None:
            raise ValueError("epochs: null needs steps, the steps of a round")
        if self.epochs is not None and self.steps is not None:
            raise ValueError(f"steps: give steps or epochs, not both; epochs is {self.epochs}")
        if self.nesterov and self.optimizer != "sgd":
            raise ValueError(f"nesterov: needs optimizer: sgd, not {self.optimizer}")
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov: needs a momentum above 0")
        return self

    def at(self, round: int, rounds: int) -> LocalConfig:
        """Return this section with the learning rates of ``round``."""
        factor = self.schedule.at(round, rounds)
        if factor == 1:
            return self
        rates = {"lr": self.lr, "head_lr": self.head_lr}
        scaled = {name: factor * rate for name, rate in rates.items() if rate is not None}
        return self.model_copy(update=scaled)

    def of_one_epoch(self) -> LocalConfig:
        """Return this section with one epoch for a task, for trials."""
        return self.model_copy(update={"epochs": 1, "steps": None})

    def task_steps(self, batches: int) -> int:
        """Return the steps of a client's task, whose epoch has ``batches`` plain batches."""
        if self.steps is not None:
            return self.steps if batches else 0
        assert self.epochs is not None
        return self.epochs * batches
