"""Clipping of an update to a norm, and the rules by which the norm changes from round to round.

``quantile``: Andrew et al., Differentially private learning with adaptive clipping, NeurIPS 2021,
https://arxiv.org/abs/1905.03871, algorithm 1 and theorem 1. ``tradeoff`` is fedlt's own: gradient
descent on the mean squared error of the released mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

_TINY = 1e-12
STEP, RANGE = 0.2, 1e3  # tradeoff: step in the norm's logarithm, and how far the norm may go


def clip_factor(length: float, norm: float | None) -> float:
    """Return the factor min(1, norm / length) that brings a vector inside a norm.

    1 for a vector without length, and where nothing is clipped (``norm`` None).
    """
    return 1.0 if norm is None or length <= norm else norm / length


def update_noise(noise: float, count_noise: float, counts: int) -> float:
    """Return the multiplier for the updates, if counts are released beside them.

    The whole release then has the multiplier ``noise``: z_update = (z^-2 - n (2 sigma)^-2)^(-1/2),
    since a count of centred bits has the sensitivity 1/2 (Andrew et al., theorem 1, for n = 1).

    Args:
        noise: z, multiplier of the whole release.
        count_noise: sigma, standard deviation of the noise on each count.
        counts: n, number of counts.

    Raises:
        ValueError: If the counts alone spend more than ``noise`` allows.
    """
    if not noise:
        return 0.0
    rest = noise**-2 - counts * (2 * count_noise) ** -2
    if rest <= 0:
        raise ValueError(
            f"the noise multiplier {noise:g} needs counts with more noise than {count_noise:g}: "
            f"above {noise * math.sqrt(counts) / 2:.4g}"
        )
    return float(rest**-0.5)


def quantile_norm(norm: float, inside: float, *, target: float, lr: float) -> float:
    """Return the next norm, C exp(-lr (b - target)): Andrew et al., equation in section 2.1.

    Args:
        norm: C, the norm.
        inside: b, share of the updates that are not longer than C, noisy.
        target: The share wanted.
        lr: Step of the norm's logarithm.
    """
    return norm * math.exp(-lr * (inside - target))


@dataclass(frozen=True)
class Tradeoff:
    """Mean squared error of the mean of M clipped vectors with noise, as a function of the norm C.

    J(C) = kappa d z^2 C^2 / M^2 + (mean_i max(|g_i| - C, 0))^2: the variance of the noise, and an
    upper bound on the squared bias of clipping.
    """

    noise: float  # z
    size: int  # d, entries of a vector
    members: float  # M
    kappa: float

    def next_norm(self, norm: float, outside: float, excess: float, *, first: float) -> float:
        """Return C exp(-STEP C J'(C) / J(C)), within a factor ``RANGE`` of the first norm.

        Args:
            norm: C.
            outside: r, share of the vectors that are longer than C.
            excess: e, mean of max(|g_i| - C, 0).
            first: The norm of the first round.
        """
        noise = self.kappa * self.size * (self.noise / self.members) ** 2
        error = noise * norm**2 + excess**2
        slope = 2 * noise * norm - 2 * outside * excess
        moved = norm * math.exp(-STEP * slope * norm / max(error, _TINY))
        return min(max(moved, first / RANGE), first * RANGE)
