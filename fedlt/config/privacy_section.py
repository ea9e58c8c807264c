"""The section ``privacy``: differential privacy of a run (docs/privacy.md)."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from fedlt.config.ranges import NotNegative, PartShare, Positive
from fedlt.config.section import Section


class QuantileConfig(Section):
    """Clipping norm that follows a quantile of the updates' norms."""

    target: PartShare = 0.5  # share of updates that the norm should not clip
    lr: Positive = 0.2  # step of the norm's logarithm, a round
    initial: Positive = 0.1  # norm of the first round
    bit_noise: Positive | None = None  # noise on the number of updates inside; None: qN / 20


class PrivacyConfig(Section):
    """Mechanism, clipping, noise, and the limits of what may be spent."""

    mechanism: Literal["central", "local", "sample"] = "central"  # docs/privacy.md
    clipping: Literal["fixed", "quantile", "tradeoff"] = "fixed"  # the rule of the norm
    norm: Positive | None = None  # fixed, or the first of `tradeoff`; None: no clipping
    noise_multiplier: NotNegative | None = None  # noise over clipping norm; or target_epsilon
    target_epsilon: Positive | None = None  # the noise is solved for this
    delta: PartShare = 1e-5
    sampling: Literal["poisson", "fixed"] = "poisson"  # of cohorts; of batches with `sample`
    stop_at: Positive | None = None  # the run ends before it spends a larger epsilon
    quantile: QuantileConfig = QuantileConfig()
    kappa: Positive = 1.0  # weight of the noise in `tradeoff`

    @property
    def is_noisy(self) -> bool:
        """True unless the noise multiplier is 0, which gives no privacy."""
        return self.noise_multiplier != 0

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.noise_multiplier is None) == (self.target_epsilon is None):
            raise ValueError("give noise_multiplier or target_epsilon, one of them")
        if self.clipping == "quantile" and self.norm is not None:
            raise ValueError("norm: clipping: quantile finds it; its first one is quantile.initial")
        if self.clipping != "quantile" and self.quantile != QuantileConfig():
            raise ValueError(f"quantile: is for clipping: quantile, not {self.clipping}")
        if self.clipping != "tradeoff" and self.kappa != 1.0:
            raise ValueError(f"kappa: is for clipping: tradeoff, not {self.clipping}")
        if self.clipping == "tradeoff" and self.norm is None:
            raise ValueError("norm: is missing; clipping: tradeoff begins with it")
        if self.clipping == "fixed" and self.norm is None and self.is_noisy:
            raise ValueError("norm: is missing; noise hides only what is clipped to a norm")
        if self.clipping != "fixed" and self.mechanism != "central":
            raise ValueError(
                f"clipping: {self.clipping} counts over a cohort, which mechanism: "
                f"{self.mechanism} does not; take fixed"
            )
        if self.stop_at is not None and not self.is_noisy:
            raise ValueError("stop_at: without noise every round spends an infinite epsilon")
        return self
