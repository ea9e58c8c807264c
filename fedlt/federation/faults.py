"""Faults of a federation, for research: seeded, the same on every engine and after resume.

    lost        a sampled client gives no answer: ``uniform``, or ``few``: owners of few-classes
    straggler   a client's full work takes longer than the deadline: it does a part, or is dropped
    late        a client joins the federation in some round, and is never sampled before
    corrupt     a client's update is not finite, or its step is multiplied by a factor
    stale       a client's personal state of the round is not stored: it keeps the old one

Everything here is a pure function of the configuration, the seed, the round and the clients; every
draw is keyed by (seed, purpose, round, client). The definitions are in docs/faults.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist, median_low
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fedlt.data.arrays import BoolArray, FloatArray, IntArray
from fedlt.data.batches import batch_slices
from fedlt.data.shots import groups_note
from fedlt.errors import FedltError
from fedlt.rng import numpy_generator, uniform

if TYPE_CHECKING:
    from fedlt.config import FaultsConfig
    from fedlt.federation.observer import Observer


KINDS = ("lost", "dropped", "partial", "corrupt", "stale", "nonfinite", "huge")  # in the log
NORM_WINDOW = 10  # rounds whose median norms say what is huge


@dataclass(frozen=True)
class RoundFaults:
    """Faults of one round, by client. Clients of the first two kinds do not answer."""

    asked: tuple[int, ...]  # clients that answer, sorted
    lost: tuple[int, ...] = ()
    dropped: tuple[int, ...] = ()  # stragglers that miss the deadline and send nothing
    partial: Mapping[int, tuple[int, int]] = field(default_factory=dict)  # cid: steps, of how many
    corrupt: tuple[int, ...] = ()
    stale: tuple[int, ...] = ()
    sent: Mapping[str, str | float] = field(default_factory=dict)  # what a corrupt client is told
    draws: Mapping[int, int] = field(default_factory=dict)  # cid: how often; {}: each client once

    def settings(self, cid: int) -> dict[str, Any]:
        """Return the settings for client ``cid`` beside the round's settings; mostly empty."""
        own: dict[str, Any] = {}
        if cid in self.partial:
            own["work"] = list(self.partial[cid])
        if cid in self.corrupt:
            own |= self.sent
        if cid in self.stale:
            own["stale"] = True
        if cid in self.draws:
            own["draws"] = self.draws[cid]
        return own

    def by_kind(self) -> dict[str, list[int]]:
        """Return the clients of each kind."""
        return {kind: list(getattr(self, kind)) for kind in KINDS if hasattr(self, kind)}


@dataclass(frozen=True, eq=False)
class Faults:
    """Faults of a run with K clients: what is fixed; :meth:`of_round` draws one round."""

    config: FaultsConfig
    seed: int
    lost: FloatArray  # (K,) probability of giving no answer when sampled
    joins: IntArray  # (K,) first round in which the client may be sampled
    corrupt: BoolArray  # (K,)
    full_steps: IntArray  # (K,) local steps of a whole task
    median_steps: float  # of the clients with images
    needed: int = 1  # answers without which a round is given up

    @classmethod
    def of(cls, observer: Observer) -> Faults | None:
        """Return the faults that the experiment file asks for; None if it asks for none.

        Raises:
            FedltError: If the aimed rate cannot be met with this partition.
        """
        config, seed = observer.config.faults, observer.seed
        clients = observer.num_clients
        if not config.is_active:
            return None
        steps = _full_steps(observer)
        return cls(
            config=config,
            seed=seed,
            lost=_lost_rates(observer),
            joins=_joining_rounds(config, seed, clients),
            corrupt=_chosen(clients, config.corrupt.share, seed, "corrupt clients"),
            full_steps=steps,
            median_steps=float(np.median(steps[steps > 0])),
            needed=2 if observer.config.prior.source == "secure_sum" else 1,
        )

    def joined(self, round_: int, cids: Sequence[int]) -> list[int]:
        """Return the clients among ``cids`` that have joined by a round, in order."""
        if not self.config.late.share:
            return list(cids)
        listed = np.asarray(cids, dtype=np.int64)
        joined: list[int] = listed[self.joins[listed] <= round_].tolist()
        return joined

    def late(self, round_: int) -> int:
        """Return the number of clients that have not joined yet."""
        return int((self.joins > round_).sum())

    def of_round(self, round_: int, cohort: Sequence[int], *, stored: BoolArray) -> RoundFaults:
        """Draw the faults of a round.

        Args:
            round_: The round, from 1.
            cohort: The sampled clients, sorted.
            stored: (K,) True for clients with a stored personal state.
        """
        lost = [c for c in cohort if uniform(self.seed, "lost", round_, c) < self.lost[c]]
        work = {cid: self._steps_in_time(round_, cid) for cid in _without(cohort, lost)}
        slow = {cid: steps for cid, steps in work.items() if steps < self.full_steps[cid]}
        drop = self.config.straggler.action == "drop"
        dropped = [cid for cid, steps in slow.items() if drop or steps == 0]
        asked = _without(list(work), dropped)
        if len(asked) < self.needed:
            asked = []
        corrupt = self.config.corrupt
        return RoundFaults(
            asked=tuple(asked),
            lost=tuple(lost),
            dropped=tuple(dropped),
            partial={c: (slow[c], int(self.full_steps[c])) for c in asked if c in slow},
            corrupt=tuple(c for c in asked if self._is_corrupt(round_, c)),
            stale=tuple(c for c in asked if stored[c] and self._is_stale(round_, c)),
            sent={"corrupt": corrupt.kind, "factor": corrupt.factor},
        )

    def _steps_in_time(self, round_: int, cid: int) -> int:
        """Return the steps that a client makes before the deadline, at most its whole task.

        A step of client k takes exp(spread z_k + jitter z_rk) units, z standard normal: the median
        client's takes one. The deadline is in units of the median client's whole task.
        """
        straggler, full = self.config.straggler, int(self.full_steps[cid])
        if straggler.deadline is None or full == 0:
            return full
        draw = NormalDist().inv_cdf
        exponent = straggler.spread * draw(uniform(self.seed, "speed", cid))
        exponent += straggler.jitter * draw(uniform(self.seed, "speed", round_, cid))
        in_time = straggler.deadline * self.median_steps * math.exp(-exponent)
        return min(full, math.floor(in_time))

    def _is_corrupt(self, round_: int, cid: int) -> bool:
        rate = self.config.corrupt.rate
        return bool(self.corrupt[cid]) and uniform(self.seed, "corrupt", round_, cid) < rate

    def _is_stale(self, round_: int, cid: int) -> bool:
        """Return True if the client's store failed in this round or in the last ``rounds`` - 1."""
        stale = self.config.stale
        since = range(max(1, round_ - stale.rounds + 1), round_ + 1)
        return any(uniform(self.seed, "stale", past, cid) < stale.rate for past in since)


def _without(cids: Sequence[int], out: Sequence[int]) -> list[int]:
    gone = set(out)
    return [cid for cid in cids if cid not in gone]


def aimed_rates(shares: npt.ArrayLike, rate: float) -> FloatArray:
    """Return p_k = min(1, c s_k) (K,), with c such that the mean of p over all K is ``rate``.

    Args:
        shares: (K,) s_k, not negative.
        rate: At most the share of clients with s_k above 0.
    """
    shares = np.asarray(shares, dtype=np.float64)
    capped = np.zeros(len(shares), dtype=np.bool_)
    rates = np.zeros(len(shares))
    while (free := ~capped & (shares > 0)).any():
        left = rate * len(shares) - capped.sum()
        rates = np.where(capped, 1.0, shares * max(left, 0.0) / shares[free].sum())
        over = free & (rates > 1)
        if not over.any():
            return rates
        capped |= over
    return capped.astype(np.float64)


def _lost_rates(observer: Observer) -> FloatArray:
    """Return each client's probability of being lost (K,)."""
    config, data = observer.config, observer.data
    lost = config.faults.lost
    if lost.aim == "uniform" or lost.rate == 0:
        return np.full(observer.num_clients, lost.rate)
    few = observer.shots.few
    counts = data.client_counts
    shares = counts[:, list(few)].sum(axis=1) / np.maximum(counts.sum(axis=1), 1)
    if not few:
        raise FedltError(
            "faults.lost.aim: few needs few-classes, and there are none: "
            f"{groups_note(observer.shots, data.class_counts)}"
        )
    owners = float((shares > 0).mean())
    if lost.rate > owners:
        raise FedltError(
            f"faults.lost.rate: {lost.rate} cannot be met by aim: few; "
            f"a share of {owners:g} of the clients holds images of few-classes"
        )
    return aimed_rates(shares, lost.rate)


def _chosen(clients: int, share: float, seed: int, purpose: str) -> BoolArray:
    """Return a seeded set of round(share K) clients (K,)."""
    chosen = np.zeros(clients, dtype=np.bool_)
    size = math.floor(share * clients + 0.5)
    if size:
        chosen[numpy_generator(seed, purpose).choice(clients, size=size, replace=False)] = True
    return chosen


def _joining_rounds(config: FaultsConfig, seed: int, clients: int) -> IntArray:
    """Return the first round of each client (K,): 1, or drawn for the late ones."""
    late = config.late
    joins = np.ones(clients, dtype=np.int64)
    chosen = _chosen(clients, late.share, seed, "late clients")
    last = late.first if late.last is None else late.last
    for cid in np.flatnonzero(chosen).tolist():
        draw = uniform(seed, "late", cid)
        joins[cid] = late.first + math.floor(draw * (last - late.first + 1))
    return joins


def _full_steps(observer: Observer) -> IntArray:
    """Return the local steps of each client's whole task (K,), counted in plain batches."""
    local = observer.config.local
    sizes = observer.data.client_counts.sum(axis=1).tolist()
    known = {n: local.task_steps(len(batch_slices(n, local.batch_size))) for n in set(sizes)}
    return np.array([known[n] for n in sizes], dtype=np.int64)


@dataclass
class NormRule:
    """The rule by which an update is huge: the norm of its difference from the broadcast.

    The bound is known before a round, so that workers can leave a huge update out of their sums:
    ``max_norm``, and ``max_ratio`` times the median over the last rounds of each round's median
    norm. Until a first round was judged there is no such median, so that round is judged
    afterwards by its own; if it holds a huge update, its sum is thrown away.
    """

    max_norm: float | None
    max_ratio: float | None
    medians: list[float] = field(default_factory=list)  # of the last rounds; in the checkpoint

    @property
    def bound(self) -> float:
        """The largest norm that the next round accepts."""
        bounds = [math.inf if self.max_norm is None else self.max_norm]
        if self.max_ratio is not None and self.medians:
            bounds.append(self.max_ratio * median_low(self.medians))
        return min(bounds)

    def judge(self, norms: Mapping[int, float]) -> tuple[list[int], bool]:
        """Judge a round's norms by client; those that are not finite are not judged.

        Returns:
            The clients with huge updates, and whether the sum of the others can be used.
        """
        known = {cid: norm for cid, norm in norms.items() if math.isfinite(norm)}
        bound, usable = self.bound, True
        moved = [norm for norm in known.values() if norm > 0]
        if self.max_ratio is not None and moved:
            middle = median_low(moved)
            if not self.medians:
                usable = all(n <= self.max_ratio * middle for n in moved if n <= bound)
                bound = min(bound, self.max_ratio * middle)
            self.medians = [*self.medians, middle][-NORM_WINDOW:]
        return [cid for cid, norm in known.items() if norm > bound], usable


@dataclass
class FaultLog:
    """Counts of faults so far in a run; part of the checkpoint and of the result."""

    entries: list[list[Any]] = field(default_factory=list)  # [round, cid, kind]
    passed: list[int] = field(default_factory=list)  # rounds without a step

    def add(self, round_: int, found: Mapping[str, Iterable[int]], *, passed: bool) -> None:
        """Add one round's clients by kind."""
        self.entries += [[round_, cid, kind] for kind, cids in found.items() for cid in cids]
        if passed:
            self.passed.append(round_)

    def counts(self) -> dict[str, int]:
        """Return the count of each kind of fault, and the number of rounds without a step."""
        counts = dict.fromkeys(KINDS, 0)
        for _, _, kind in self.entries:
            counts[kind] += 1
        return {**counts, "passed": len(self.passed)}

    def metrics(self, late: int) -> dict[str, int]:
        """Return the counts ``train/...`` so far, for a line of ``rounds.jsonl``."""
        return {"train/late": late, **{f"train/{kind}": n for kind, n in self.counts().items()}}

    def result(self) -> dict[str, Any]:
        """Return the entry of ``result.json``."""
        return {**self.counts(), "passed_rounds": self.passed, "log": self.entries}
