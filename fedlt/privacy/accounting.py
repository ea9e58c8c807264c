"""Privacy spent by releases with Gaussian noise: epsilon at a delta, the noise for an epsilon.

Two accountants. ``rdp``: Renyi differential privacy (Mironov, CSF 2017,
https://arxiv.org/abs/1702.07476), by Flower's accountant; its epsilon is what fedlt reports and
stops at. ``pld``: privacy loss distributions (Koskela et al., AISTATS 2020,
https://arxiv.org/abs/1906.03049), by Google's dp-accounting; its epsilon is smaller, and right too.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from fedlt.errors import FedltError

if TYPE_CHECKING:
    from collections.abc import Iterator

Sampling = Literal["poisson", "fixed", "none"]
# "add" or "remove" one, or "replace" one, in the words of Flower and of dp-accounting.
_RELATIONS = {"poisson": "ADD_OR_REMOVE_ONE", "fixed": "REPLACE_ONE", "none": "ADD_OR_REMOVE_ONE"}
_METHODS = {"poisson": "POISSON", "fixed": "WITHOUT_REPLACEMENT", "none": "NO_AMPLIFICATION"}
_LEAST, _MOST = 1e-2, 1e4  # noise multipliers between which one is solved for


@dataclass(frozen=True)
class Release:
    """Kind of release: the sum over a sample, each member's part bounded, plus Gaussian noise.

    ``noise`` is the standard deviation over the norm that bounds a member's part. Samples are drawn
    by ``sampling``: ``poisson`` (every member by itself, with probability sample / population),
    ``fixed`` (``sample`` members without replacement) or ``none`` (the sample is known).

    Two neighbouring populations differ by one more member. With ``fixed`` one member is replaced,
    which changes the sum by twice the norm; so is a member's own release with ``none``, whose
    presence is known. The noise is then worth half.
    """

    noise: float  # noise multiplier z; 0: no noise
    sample: int
    population: int
    sampling: Sampling

    @property
    def multiplier(self) -> float:
        """The standard deviation of the noise over the sensitivity of the sum."""
        return self.noise if self.sampling == "poisson" else self.noise / 2


def epsilon(release: Release, times: int, delta: float) -> float:
    """Return the epsilon that ``times`` releases spend at ``delta``, by RDP.

    Infinite without noise, 0 for no release.

    Raises:
        FedltError: If dp-accounting is not installed, or does not know the sampling.
    """
    if not times:
        return 0.0
    if release.noise <= 0:
        return math.inf
    return _rdp(release, times, delta)


def tight_epsilon(release: Release, times: int, delta: float) -> float | None:
    """Return the epsilon that ``times`` releases spend at ``delta``, by PLD.

    None for cohorts of a fixed size, for which dp-accounting has no privacy loss distribution.

    Raises:
        FedltError: If dp-accounting is not installed.
    """
    if not times:
        return 0.0
    if release.noise <= 0:
        return math.inf
    return None if release.sampling == "fixed" else _pld(release, times, delta)


def gaussian_delta(mu: float, epsilon: float) -> float:
    """Return the exact delta of a Gaussian release with sensitivity / noise ``mu`` at ``epsilon``.

    delta = Phi(mu / 2 - epsilon / mu) - e^epsilon Phi(-mu / 2 - epsilon / mu): Balle and Wang, ICML
    2018, https://arxiv.org/abs/1805.06530, theorem 5. T releases of noise z to everybody have mu =
    sqrt(T) / z.
    """
    from scipy.stats import norm

    first = norm.cdf(mu / 2 - epsilon / mu)
    return float(first - math.exp(epsilon + norm.logcdf(-mu / 2 - epsilon / mu)))


def solve_noise(spent: Callable[[float], float], target: float) -> float:
    """Return the least noise multiplier, to six digits, that spends at most ``target``.

    Args:
        spent: Noise multiplier -> epsilon, falling.
        target: The epsilon that may be spent.

    Raises:
        FedltError: If no noise multiplier below 10,000 does.
    """
    low, high = _LEAST, _MOST
    if spent(high) > target:
        raise FedltError(
            f"privacy.target_epsilon: {target:g} cannot be reached with a noise multiplier below "
            f"{_MOST:,.0f}"
        )
    while high / low > 1 + 1e-6:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if spent(middle) <= target else (middle, high)
    return high


def longest(spent: Callable[[int], float], limit: float, most: int) -> int:
    """Return the largest number of releases, up to ``most``, that spend at most ``limit``.

    Args:
        spent: Number of releases -> epsilon, rising.
        limit: The epsilon that may be spent.
        most: The largest number of interest.
    """
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if spent(middle) <= limit else (low, middle - 1)
    return low


def frontier(pairs: Sequence[tuple[float, int]]) -> list[tuple[float, int]]:
    """Return the pairs (sampling rate, releases) that no other pair exceeds in both."""
    kept: list[tuple[float, int]] = []
    for rate, times in sorted(set(pairs), reverse=True):
        if not kept or times > kept[-1][1]:
            kept.append((rate, times))
    return kept


@lru_cache(maxsize=4096)
def _rdp(release: Release, times: int, delta: float) -> float:
    import flwr.serverapp as flower

    _google()
    config = flower.PrivacyConfig(
        target_delta=delta,
        population_size=release.population,
        neighboring_relation=flower.NeighboringRelation[_RELATIONS[release.sampling]],
        sampling_method=flower.SamplingMethod[_METHODS[release.sampling]],
    )
    event = flower.GaussianPrivacyEvent(
        noise_multiplier=release.multiplier,
        sample_size=release.sample,
        population_size=release.population,
    )
    with _quiet():
        accountant = flower.RdpAccountant(config)
        accountant.compose(event, times)
        return float(accountant.get_epsilon(delta))


@lru_cache(maxsize=1024)
def _pld(release: Release, times: int, delta: float) -> float:
    if release.sampling == "none" or release.sample == release.population:
        # Gaussian releases to everybody add up to one with less noise.
        composed = _loss(release.multiplier / math.sqrt(times), 1.0)
    else:
        composed = _loss(release.multiplier, release.sample / release.population)
        composed = composed.self_compose(times)
    return float(composed.get_epsilon_for_delta(delta))


@lru_cache(maxsize=64)
def _loss(multiplier: float, rate: float) -> Any:  # noqa: ANN401 (a package without types)
    """Return the privacy loss distribution of one release to a Poisson sample."""
    with _quiet():
        return _google().pld.privacy_loss_distribution.from_gaussian_mechanism(
            multiplier, sampling_prob=rate, value_discretization_interval=1e-4
        )


def _google() -> Any:  # noqa: ANN401 (a package without types)
    try:
        import dp_accounting
    except ImportError as error:
        raise FedltError('privacy: needs dp-accounting: pip install "fedlt[dp]"') from error
    return dp_accounting


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence a warning about fractional orders, which dp-accounting leaves out by itself."""
    from absl import logging as absl

    before = absl.get_verbosity()
    absl.set_verbosity(absl.ERROR)
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        absl.set_verbosity(before)
        logger.setLevel(level)
