"""Checkpoints of a run: the server's knowledge, the ledger and the personal states, packed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from fedlt.federation.faults import FaultLog
from fedlt.federation.ledger import Ledger
from fedlt.runs.checkpoints import Checkpoint, clean, load_checkpoint, save_checkpoint
from fedlt.runs.personal_states import PersonalStates, Snapshot
from fedlt.runs.recorded import check_record, make_record

if TYPE_CHECKING:
    from fedlt.runs.directory import RunDirectory
    from fedlt.update import Tensors


@dataclass(frozen=True)
class ServerSnapshot:
    """The server's knowledge between rounds."""

    tensors: dict[str, Tensors]  # by group
    values: dict[str, object]  # JSON values, the round among them
    heard: npt.NDArray[np.bool_]  # (K,) clients that have answered so far
    trained: npt.NDArray[np.bool_]  # (K,) of those, with an update that was used
    norms: list[float]  # of the norm rule: medians of the last rounds


def save_run(
    directory: RunDirectory, server: ServerSnapshot, ledger: Ledger, states: PersonalStates
) -> None:
    """Write a checkpoint of a run's last round."""
    record = make_record(directory.path, ledger.evaluations, ledger.rounds_length)
    personal = states.flush()
    heard, trained = (np.flatnonzero(who) for who in (server.heard, server.trained))
    arrays = {"heard": heard, "trained": trained, "steps": ledger.steps[trained]}
    participants = {name: torch.from_numpy(array) for name, array in arrays.items()}
    save_checkpoint(
        directory.checkpoints,
        round=int(str(server.values["round"])),
        tensors={**server.tensors, "participants": participants, "personal": personal.table},
        meta={
            "server": server.values,
            "excluded": ledger.excluded,
            "faults": vars(ledger.fault_log),
            "norms": server.norms,
            "bytes_up": ledger.bytes_up,
            "clipped": ledger.clipped,
            "seconds": ledger.seconds,
            "due": ledger.due,
            "record": record,
        },
        files=personal.files,
        run=directory.run,
    )


def load_run(directory: RunDirectory) -> Checkpoint | None:
    """Return a run's newest checkpoint that fits its files; None where none was ever saved.

    Files that a killed process left half-written are removed.
    """

    def check(checkpoint: Checkpoint) -> str:
        return check_record(directory.path, checkpoint.meta["record"])

    found = load_checkpoint(directory.checkpoints, run=directory.run, check=check)
    clean(directory.checkpoints)
    return found


def unpack(checkpoint: Checkpoint, num_clients: int) -> tuple[ServerSnapshot, Ledger, Snapshot]:
    """Return server, ledger and personal states of a checkpoint, of ``num_clients`` clients."""
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
        clipped=meta.get("clipped", {}),  # not in checkpoints of earlier versions
        rounds_length=meta["record"]["rounds"]["length"],
        evaluations=meta["record"]["evaluations"],
        due=meta["due"],
    )
    ledger.steps[who["trained"]] = who["steps"]
    return ServerSnapshot(groups, meta["server"], heard, trained, meta["norms"]), ledger, states
