"""Outcome of a round, and the ledger: counts over all rounds of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fedlt.federation.faults import FaultLog

if TYPE_CHECKING:
    from fedlt.evaluation import Metric
    from fedlt.federation.faults import NormRule, RoundFaults
    from fedlt.privacy.release import Released
    from fedlt.strategy import ServerState


@dataclass(frozen=True)
class RoundOutcome:
    """The outcome of one round; clients are cids in cohort order."""

    plan: RoundFaults  # which clients were asked, and what was to go wrong
    lists: Mapping[str, Sequence[float]]  # metrics by name: one value a client that answered
    answered: tuple[int, ...]
    used: tuple[int, ...]  # clients in the sum; none: no step was taken
    huge: tuple[int, ...]  # clients that answered and that the norm rule leaves out
    nonfinite: tuple[int, ...]  # clients that answered with an update that is not finite
    silent: tuple[int, ...] = field(default=(), kw_only=True)  # asked, but no answer came
    outdated: tuple[int, ...] = field(default=(), kw_only=True)  # their node has an older state
    state: ServerState  # the server's, after the round
    rule: NormRule | None  # the server's, with the norms of the round
    stock: object = None  # a stock Flower strategy after the round
    release: Released | None = None  # of a private run: the noisy sum

    @property
    def weight(self) -> float:
        """The sum of the weights of the clients in the sum; of a private run, its divisor."""
        if self.release is not None:
            return self.release.divisor
        used = set(self.used)
        pairs = zip(self.answered, self.lists["weight"], strict=True)
        return sum(weight for cid, weight in pairs if cid in used)

    @property
    def excluded(self) -> list[int]:
        """The clients that answered and are not in the sum."""
        used = set(self.used)
        return [cid for cid in self.answered if cid not in used]

    def notes(self) -> list[str]:
        """Return a line for every update that was not used, and one where no step was taken."""
        start = f"round {self.state.round}:"
        left_out = (("not finite", self.nonfinite), ("too large", self.huge))
        lines = [f"{start} client {c}: no answer, counted as lost" for c in self.silent]
        lines += [f"{start} client {c}: its node had lost its newest state" for c in self.outdated]
        lines += [
            f"{start} client {c}: update {why}, left out" for why, cids in left_out for c in cids
        ]
        if self.used:
            return lines
        step = "no step taken" if self.release is None else "the step is noise alone"
        return [*lines, f"{start} no update to use, {step}"]


@dataclass
class Ledger:
    """Ledger of a run. A round is entered once its models are in force."""

    steps: npt.NDArray[np.int64]  # (K,) of each client's last round that was stored
    seconds: float = 0.0  # of training and evaluation, over all sessions of the run
    excluded: list[list[int]] = field(default_factory=list)  # [round, cid] of unused updates
    fault_log: FaultLog = field(default_factory=FaultLog)  # what went wrong, injected or found
    bytes_up: int = 0  # a client's answer of one round, largest so far
    rounds_length: int = 0  # bytes of rounds.jsonl that are lines of this run
    evaluations: dict[str, str] = field(default_factory=dict)  # file -> digest, of those written
    clipped: dict[str, list[int]] = field(default_factory=dict)  # group -> clipped, all; updates
    due: dict[str, Metric] | None = None  # train/... of a round that is not evaluated yet

    def note(self, outcome: RoundOutcome) -> None:
        """Enter a round: steps, faults, excluded clients, training metrics."""
        round_, lists, plan = outcome.state.round, outcome.lists, outcome.plan
        self.bytes_up = int(max([self.bytes_up, *lists.get("bytes", [])]))
        own = lists.get("personal_steps", lists.get("steps"))
        if own is not None:
            steps = dict(zip(outcome.answered, own, strict=True))
            stored = sorted(set(outcome.used) - set(plan.stale))
            self.steps[stored] = [steps[cid] for cid in stored]
        self.excluded += [[round_, cid] for cid in outcome.excluded]
        found = plan.by_kind() | {"nonfinite": outcome.nonfinite, "huge": outcome.huge}
        found["lost"] = sorted([*found["lost"], *outcome.silent])
        found["stale"] = sorted([*found["stale"], *outcome.outdated])
        self.fault_log.add(round_, found, passed=not outcome.used)
        self.due = _train_metrics(outcome)

    @property
    def has_failures(self) -> bool:
        """True if a client gave no answer, or its node has lost a state."""
        return any(kind in ("lost", "stale") for _, _, kind in self.fault_log.entries)

    def metrics(self, late: int | None) -> dict[str, Metric]:
        """Return the entries ``train/...`` of a line of ``rounds.jsonl``.

        Args:
            late: Clients that have not joined yet; None: the run's file names no faults.
        """
        shown = late is not None or self.has_failures
        faults = self.fault_log.metrics(late or 0) if shown else {}
        return {**(self.due or {}), **faults, "train/excluded": len(self.excluded)}


def _train_metrics(outcome: RoundOutcome) -> dict[str, Metric]:
    """Return ``train/...``: sums over the clients in the round's sum, divided by their examples."""
    keep = np.isin(outcome.answered, outcome.used)
    sums = {n: float(np.asarray(values)[keep].sum()) for n, values in outcome.lists.items()}
    examples = sums.get("examples", 0.0)
    skipped = {"cid", "finite", "weight", "bytes", "norm", "examples", "steps", "personal_steps",
               "stored", "outdated", "clipped"}  # fmt: skip
    ratios = {f"train/{n}": v / examples for n, v in sums.items() if n not in skipped and examples}
    return {**ratios, "train/clients": len(outcome.used)}
