"""Counts of a run besides the server's state; both are packed into a checkpoint here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from fedlt.federation.faults import FaultLog
from fedlt.runs.personal_states import Snapshot

if TYPE_CHECKING:
    from fedlt.evaluation import Metric
    from fedlt.flower.adapter import ServerHalf
    from fedlt.runs.checkpoints import Checkpoint
    from fedlt.runs.personal_states import PersonalStates


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

    def note(self, server: ServerHalf, round_: int, lists: Mapping[str, Any]) -> None:
        """Enter a round: steps, faults, excluded clients, and what its line will need.

        Args:
            server: It has taken the round's step.
            round_: The round.
            lists: What the clients answered: one value a client by name.
        """
        self.bytes_up = int(max([self.bytes_up, *lists.get("bytes", [])]))
        own = lists.get("personal_steps", lists.get("steps"))
        if own is not None:
            steps = dict(zip(lists["cid"], own, strict=True))
            stored = sorted(set(server.finite) - set(server.plan.stale))
            self.steps[stored] = [steps[cid] for cid in stored]
        self.excluded += [[round_, cid] for cid in server.excluded]
        found = {"nonfinite": server.nonfinite, "huge": server.huge}
        self.fault_log.add(round_, server.plan.by_kind() | found, passed=not server.finite)
        self.due = _train_metrics(lists, server.finite)


def pack(
    server: ServerHalf, ledger: Ledger, states: Snapshot, record: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what a checkpoint holds of a run: ``round``, ``tensors``, ``meta`` and ``files``.

    Args:
        server: The server.
        ledger: The books.
        states: Where the personal states lie.
        record: Digests of the files that were written before; see `fedlt.runs.recorded`.
    """
    groups, values = server.snapshot()
    heard, trained = (np.flatnonzero(who) for who in (server.heard, server.trained))
    arrays = {"heard": heard, "trained": trained, "steps": ledger.steps[trained]}
    participants = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return {
        "round": server.state.round,
        "tensors": {**groups, "participants": participants, "personal": states.table},
        "meta": {
            "server": values,
            "excluded": ledger.excluded,
            "faults": vars(ledger.fault_log),
            "norms": [] if server.rule is None else server.rule.medians,
            "bytes_up": ledger.bytes_up,
            "seconds": ledger.seconds,
            "due": ledger.due,
            "record": dict(record),
        },
        "files": states.files,
    }


def unpack(
    checkpoint: Checkpoint, server: ServerHalf, ledger: Ledger, states: PersonalStates
) -> None:
    """Put a run back to where a checkpoint of it was written; nothing is written."""
    meta, groups = checkpoint.meta, dict(checkpoint.tensors)
    states.restore(Snapshot(checkpoint.files, groups.pop("personal")), round=checkpoint.round)
    who = {name: tensor.numpy() for name, tensor in groups.pop("participants").items()}
    server.restore(groups, meta["server"])
    server.heard[who["heard"]] = True
    server.trained[who["trained"]] = True
    if server.rule is not None:
        server.rule.medians = meta["norms"]
    ledger.steps[who["trained"]] = who["steps"]
    ledger.excluded, ledger.seconds = meta["excluded"], meta["seconds"]
    ledger.bytes_up, ledger.due = meta["bytes_up"], meta["due"]
    ledger.rounds_length = meta["record"]["rounds"]["length"]
    ledger.evaluations = meta["record"]["evaluations"]
    ledger.fault_log = FaultLog(**meta["faults"])


def _train_metrics(lists: Mapping[str, Any], finite: list[int]) -> dict[str, Metric]:
    """Return ``train/...``: sums over the clients in the round's sum, divided by their examples."""
    keep = np.isin(lists["cid"], finite)
    sums = {name: float(np.asarray(values)[keep].sum()) for name, values in lists.items()}
    examples = sums.get("examples", 0.0)
    skipped = {"cid", "finite", "weight", "bytes", "norm", "examples", "steps", "personal_steps"}
    ratios = {f"train/{n}": v / examples for n, v in sums.items() if n not in skipped and examples}
    return {**ratios, "train/clients": len(finite)}
