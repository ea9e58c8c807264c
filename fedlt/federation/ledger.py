"""What came of a round, the books that add it up, and both packed into a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from fedlt.federation.faults import FaultLog
from fedlt.runs.personal_states import Snapshot

if TYPE_CHECKING:
    from fedlt.evaluation import Metric
    from fedlt.federation.faults import NormRule, RoundFaults
    from fedlt.runs.checkpoints import Checkpoint
    from fedlt.strategy import ServerState, Tensors


@dataclass(frozen=True)
class RoundOutcome:
    """What came of one round; clients are cids in cohort order."""

    plan: RoundFaults  # which clients were asked, and what was to go wrong
    lists: Mapping[str, Sequence[float]]  # metrics by name: one value a client that answered
    answered: tuple[int, ...]
    used: tuple[int, ...]  # clients in the sum; none: no step was taken
    huge: tuple[int, ...]  # clients that answered and that the norm rule leaves out
    nonfinite: tuple[int, ...]  # clients that answered with an update that is not finite
    state: ServerState  # the server's, after the round
    rule: NormRule | None  # the server's, with the norms of the round
    stock: object = None  # a stock Flower strategy after the round

    @property
    def weight(self) -> float:
        """The sum of the weights of the clients in the sum."""
        used = set(self.used)
        pairs = zip(self.answered, self.lists["weight"], strict=True)
        return sum(weight for cid, weight in pairs if cid in used)

    @property
    def excluded(self) -> list[int]:
        """The clients that answered and are not in the sum."""
        used = set(self.used)
        return [cid for cid in self.answered if cid not in used]


@dataclass(frozen=True)
class ServerSnapshot:
    """What the server knows between rounds."""

    tensors: dict[str, Tensors]  # by group
    values: dict[str, object]  # JSON values, the round among them
    heard: npt.NDArray[np.bool_]  # (K,) clients that have answered so far
    trained: npt.NDArray[np.bool_]  # (K,) of those, with an update that was used
    norms: list[float]  # of the norm rule: medians of the last rounds


@dataclass
class Ledger:
    """The books of a run; a round enters them when its models are there."""

    steps: npt.NDArray[np.int64]  # (K,) of each client's last round that was stored
    seconds: float = 0.0  # of training and evaluation, over all sessions of the run
    excluded: list[list[int]] = field(default_factory=list)  # [round, cid] of unused updates
    fault_log: FaultLog = field(default_factory=FaultLog)  # what went wrong, injected or found
    bytes_up: int = 0  # a client's answer of one round, largest so far
    rounds_length: int = 0  # bytes of rounds.jsonl that are lines of this run
    evaluations: dict[str, str] = field(default_factory=dict)  # file -> digest, of those written
    due: dict[str, Metric] | None = None  # train/... of a round that is not evaluated yet

    def note(self, outcome: RoundOutcome) -> None:
        """Enter a round: steps, faults, excluded clients, and what its line will need."""
        round_, lists, plan = outcome.state.round, outcome.lists, outcome.plan
        self.bytes_up = int(max([self.bytes_up, *lists.get("bytes", [])]))
        own = lists.get("personal_steps", lists.get("steps"))
        if own is not None:
            steps = dict(zip(outcome.answered, own, strict=True))
            stored = sorted(set(outcome.used) - set(plan.stale))
            self.steps[stored] = [steps[cid] for cid in stored]
        self.excluded += [[round_, cid] for cid in outcome.excluded]
        found = {"nonfinite": outcome.nonfinite, "huge": outcome.huge}
        self.fault_log.add(round_, {**plan.by_kind(), **found}, passed=not outcome.used)
        self.due = _train_metrics(outcome)


def pack(
    server: ServerSnapshot, ledger: Ledger, states: Snapshot, record: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what a checkpoint holds of a run: ``round``, ``tensors``, ``meta`` and ``files``.

    Args:
        server: What the server knows.
        ledger: The books.
        states: Where the personal states lie.
        record: Digests of the files that were written before; see `fedlt.runs.recorded`.
    """
    heard, trained = (np.flatnonzero(who) for who in (server.heard, server.trained))
    arrays = {"heard": heard, "trained": trained, "steps": ledger.steps[trained]}
    participants = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return {
        "round": server.values["round"],
        "tensors": {**server.tensors, "participants": participants, "personal": states.table},
        "meta": {
            "server": server.values,
            "excluded": ledger.excluded,
            "faults": vars(ledger.fault_log),
            "norms": server.norms,
            "bytes_up": ledger.bytes_up,
            "seconds": ledger.seconds,
            "due": ledger.due,
            "record": dict(record),
        },
        "files": states.files,
    }


def unpack(checkpoint: Checkpoint, num_clients: int) -> tuple[ServerSnapshot, Ledger, Snapshot]:
    """Return what :func:`pack` was given, for a population of ``num_clients``."""
    meta, groups = checkpoint.meta, dict(checkpoint.tensors)
    states = Snapshot(checkpoint.files, groups.pop("personal"))
    who = {name: tensor.numpy() for name, tensor in groups.pop("participants").items()}
    heard, trained = np.zeros((2, num_clients), dtype=np.bool_)
    heard[who["heard"]] = trained[who["trained"]] = True
    ledger = Ledger(
        np.zeros(num_clients, dtype=np.int64),
        seconds=meta["seconds"],
        excluded=meta["excluded"],
        fault_log=FaultLog(**meta["faults"]),
        bytes_up=meta["bytes_up"],
        rounds_length=meta["record"]["rounds"]["length"],
        evaluations=meta["record"]["evaluations"],
        due=meta["due"],
    )
    ledger.steps[who["trained"]] = who["steps"]
    return ServerSnapshot(groups, meta["server"], heard, trained, meta["norms"]), ledger, states


def _train_metrics(outcome: RoundOutcome) -> dict[str, Metric]:
    """Return ``train/...``: sums over the clients in the round's sum, divided by their examples."""
    keep = np.isin(outcome.answered, outcome.used)
    sums = {n: float(np.asarray(values)[keep].sum()) for n, values in outcome.lists.items()}
    examples = sums.get("examples", 0.0)
    skipped = {"cid", "finite", "weight", "bytes", "norm", "examples", "steps", "personal_steps"}
    ratios = {f"train/{n}": v / examples for n, v in sums.items() if n not in skipped and examples}
    return {**ratios, "train/clients": len(outcome.used)}
