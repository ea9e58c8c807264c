"""Privacy of a run with its numbers resolved: the noise, and what the rounds spend.

An account says what the members of a population have spent after a round, for any noise: the unit
that is protected is a client (``central``, ``local``) or an image of a client (``sample``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fedlt.config.privacy_section import PrivacyConfig
from fedlt.data.arrays import IntArray
from fedlt.errors import FedltError
from fedlt.privacy.accounting import (
    Release,
    epsilon,
    frontier,
    longest,
    solve_noise,
    tight_epsilon,
)
from fedlt.privacy.clipping import Tradeoff, quantile_norm, update_noise

COUNTS = {"fixed": 0, "quantile": 1, "tradeoff": 2}  # counts that a rule of the norm releases
FAR = 50.0  # epsilon
Attended = Callable[[int], IntArray]  # round -> (K,) rounds up to it in which a client took part


class Account(ABC):
    """Account of what releases spend."""

    unit: str  # whom the privacy protects, in words

    def __init__(self, delta: float) -> None:
        self.delta = delta

    @abstractmethod
    def releases(self, noise: float, round_: int) -> list[tuple[Release, int]]:
        """Return the releases after a round, and how many there are of each.

        Only those that no other exceeds in sampling rate and number: the largest spends the most.
        """

    def spent(self, noise: float, round_: int) -> float:
        """Return the largest epsilon after a round, by RDP."""
        found = self.releases(noise, round_)
        return max((epsilon(release, times, self.delta) for release, times in found), default=0.0)

    def tightly_spent(self, noise: float, round_: int) -> float | None:
        """Return the largest epsilon after a round by PLD.

        None where PLD does not know it, and above ``FAR`` by RDP: there PLD takes minutes, and a
        guarantee says nothing.
        """
        if self.spent(noise, round_) > FAR:
            return None
        found = [tight_epsilon(r, times, self.delta) for r, times in self.releases(noise, round_)]
        known = [value for value in found if value is not None]
        return max(known, default=0.0) if len(known) == len(found) else None


class CentralAccount(Account):
    """Account of ``central``: a release a round, the noisy sum over a cohort."""

    unit = "a client, with all its images"

    def __init__(self, rules: PrivacyConfig, clients: int, cohort: int) -> None:
        super().__init__(rules.delta)
        self._rules, self._clients, self._cohort = rules, clients, cohort

    def releases(self, noise: float, round_: int) -> list[tuple[Release, int]]:
        """Return the one kind of release."""
        return [(Release(noise, self._cohort, self._clients, self._rules.sampling), round_)]


class LocalAccount(Account):
    """Account of ``local``: a release of a client in each round that asks the client."""

    unit = "a client, with all its images, against the server too"

    def __init__(self, rules: PrivacyConfig, attended: Attended) -> None:
        super().__init__(rules.delta)
        self._attended = attended

    def releases(self, noise: float, round_: int) -> list[tuple[Release, int]]:
        """Return the releases of the client that took part most often."""
        return [(Release(noise, 1, 1, "none"), int(self._attended(round_).max()))]


class SampleAccount(Account):
    """Steps of DP-SGD at every client, each on a batch of its images.

    Args:
        rules: The section ``privacy``.
        sizes: (K,) images of each client.
        batch: Images of a batch.
        steps: (K,) steps of each client in one round.
        attended: Rounds of each client.
    """

    unit = "an image"

    def __init__(
        self,
        rules: PrivacyConfig,
        sizes: IntArray,
        batch: int,
        steps: IntArray,
        attended: Attended,
    ) -> None:
        super().__init__(rules.delta)
        self._rules, self._sizes, self._batch = rules, sizes, batch
        self._steps, self._attended = steps, attended

    def releases(self, noise: float, round_: int) -> list[tuple[Release, int]]:
        """Return the releases of the clients that no other client exceeds."""
        held = self._sizes > 0
        rates = np.minimum(1.0, self._batch / self._sizes[held])
        times = (self._steps * self._attended(round_))[held]
        kept = frontier([*zip(rates.tolist(), times.tolist(), strict=True)])
        size = {float(rate): int(n) for rate, n in zip(rates, self._sizes[held], strict=True)}
        return [(self._release(noise, size[rate]), count) for rate, count in kept if count]

    def by_client(self, noise: float, round_: int) -> NDArray[np.float64]:
        """Return the epsilon of every client after a round (K,); 0 where nothing was released."""
        times = self._steps * self._attended(round_)
        pairs = [*zip(self._sizes.tolist(), times.tolist(), strict=True)]
        known = {
            (size, count): epsilon(self._release(noise, size), count, self.delta)
            for size, count in set(pairs)
            if size and count
        }
        return np.array([known.get(pair, 0.0) for pair in pairs])

    def _release(self, noise: float, size: int) -> Release:
        return Release(noise, min(self._batch, size), size, self._rules.sampling)


@dataclass(frozen=True)
class PrivacyPlan:
    """Privacy of a run: its rules, its account, and the noise that both give."""

    rules: PrivacyConfig
    account: Account
    cohort: int  # clients that a round asks, on average
    noise: float  # z, of the whole release
    last_round: int  # the last one that may be done: `rounds`, or less by `stop_at`

    @classmethod
    def of(cls, rules: PrivacyConfig, account: Account, *, cohort: int, rounds: int) -> PrivacyPlan:
        """Return the plan of a run: solve for the noise, find the last round, check the counts.

        Raises:
            FedltError: If the noise cannot be had, or no round may be done.
        """
        noise = rules.noise_multiplier
        if noise is None:
            assert rules.target_epsilon is not None
            noise = solve_noise(lambda z: account.spent(z, rounds), rules.target_epsilon)
        account.spent(noise, 1)  # refuses what the accountant lacks before anything runs
        limit, last = rules.stop_at, rounds
        if limit is not None:
            last = longest(lambda r: account.spent(noise, r), limit, rounds)
            if not last:
                raise FedltError(
                    f"privacy.stop_at: {limit:g}: the first round alone spends "
                    f"{account.spent(noise, 1):.4g}"
                )
        plan = cls(rules, account, cohort, noise, last)
        _ = plan.update_noise  # refuses counts with too little noise
        return plan

    @property
    def count_noise(self) -> float:
        """Standard deviation of the noise on each count."""
        given = self.rules.quantile.bit_noise
        return self.cohort / 20 if given is None else given

    @cached_property
    def update_noise(self) -> float:
        """Standard deviation of the noise on the updates over the norm.

        Raises:
            FedltError: If the counts alone spend more than the whole release may.
        """
        try:
            return update_noise(self.noise, self.count_noise, COUNTS[self.rules.clipping])
        except ValueError as error:
            raise FedltError(f"privacy.quantile.bit_noise: {error}") from error

    @property
    def first_norm(self) -> float | None:
        """The clipping norm of the first round; None: nothing is clipped."""
        quantile = self.rules.clipping == "quantile"
        return self.rules.quantile.initial if quantile else self.rules.norm

    def next_norm(
        self, norm: float | None, size: int, inside: float, excess: float
    ) -> float | None:
        """Return the norm of the next round.

        Args:
            norm: The norm C of the round.
            size: Entries of an update.
            inside: Noisy share of the updates that are not longer than C.
            excess: Noisy mean of max(|update| - C, 0).
        """
        rules, first = self.rules, self.first_norm
        if norm is None or first is None or rules.clipping == "fixed":
            return norm
        if rules.clipping == "quantile":
            return quantile_norm(norm, inside, target=rules.quantile.target, lr=rules.quantile.lr)
        rule = Tradeoff(self.update_noise, size, self.cohort, rules.kappa)
        return rule.next_norm(norm, min(max(1 - inside, 0), 1), max(excess, 0.0), first=first)
