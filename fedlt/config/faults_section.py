"""The section ``faults``: injected faults of the federation. Definitions: docs/faults.md."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from fedlt.config.ranges import Count, NotNegative, Positive, Share
from fedlt.config.section import Section


class LostConfig(Section):
    """Sampled clients that send no update."""

    rate: Share = 0.0  # probability a round; with `few`, its mean over all clients
    aim: Literal["uniform", "few"] = "uniform"  # few: in proportion to the share of few-classes


class StragglerConfig(Section):
    """Sampled clients whose whole task takes longer than a deadline."""

    deadline: Positive | None = None  # in whole tasks of the median client; None: no deadline
    spread: NotNegative = 0.5  # sigma of the log-normal time of a step, drawn once a client
    jitter: NotNegative = 0.0  # the same, drawn for every round
    action: Literal["partial", "drop"] = "partial"  # do the steps there is time for, or nothing

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.deadline is None and self != StragglerConfig.model_construct():
            raise ValueError("deadline is missing: without one nobody is a straggler")
        return self


class LateConfig(Section):
    """Clients that join the federation in some round and are not sampled before."""

    share: Share = 0.0  # of all clients
    first: Count = 2  # the round is drawn from `first` to `last`
    last: Count | None = None  # None: `first`

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.last is not None and self.last < self.first:
            raise ValueError(f"last: {self.last} is before first: {self.first}")
        return self


class CorruptConfig(Section):
    """Clients that send wrong updates."""

    share: Share = 0.0  # of all clients, drawn once
    rate: Share = 1.0  # probability a round that such a client's update is wrong
    kind: Literal["nan", "inf", "scale"] = "nan"  # scale: its step times `factor`
    factor: Annotated[float, Field(strict=True)] = 100.0


class StaleConfig(Section):
    """Clients whose personal state of a round is not stored."""

    rate: Share = 0.0  # probability a round
    rounds: Count = 1  # for how many rounds from then on


class DetectConfig(Section):
    """Detection of huge but finite updates, by the norm of their step; such updates are dropped."""

    max_norm: Positive | None = None
    max_ratio: Annotated[float, Field(strict=True, gt=1)] | None = None  # to earlier rounds' median

    @property
    def is_active(self) -> bool:
        """True if a rule is set."""
        return self.max_norm is not None or self.max_ratio is not None


class FaultsConfig(Section):
    """Faults injected into the federation, for research, and their detection."""

    lost: LostConfig = LostConfig()
    straggler: StragglerConfig = StragglerConfig()
    late: LateConfig = LateConfig()
    corrupt: CorruptConfig = CorruptConfig()
    stale: StaleConfig = StaleConfig()
    detect: DetectConfig = DetectConfig()

    @property
    def is_set(self) -> bool:
        """True if any fault or detection is configured."""
        return self.is_active or self.detect.is_active

    @property
    def is_active(self) -> bool:
        """True if any fault is injected. Detection alone does not count."""
        rates = (self.lost.rate, self.late.share, self.corrupt.share, self.stale.rate)
        return any(rates) or self.straggler.deadline is not None
