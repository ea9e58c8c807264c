"""Whole runs in a temporary folder, and their results that must not differ between engines."""

from __future__ import annotations

import json
import pickle
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fedlt.config import Config
from fedlt.engines.engine import Engine, Job, JobResult, run_job
from fedlt.errors import FedltError
from fedlt.evaluation.request import ScoreRequest, Scores
from fedlt.federation import Parties
from fedlt.flower.client_app import make_client_app
from fedlt.progress import Progress
from fedlt.runs.checkpoints import Checkpoint, load_checkpoint, state_folder
from fedlt.runs.directory import RunDirectory
from fedlt.runs.personal_states import PersonalStates, Snapshot
from fedlt.simulate import run
from fedlt.worker.scorer import Host

APART = f"{__name__}:ApartEngine"
PERSONAL_MEMORY = 100  # MiB


def read_rows(directory: RunDirectory) -> list[dict[str, Any]]:
    """Return the lines of rounds.jsonl without their seconds."""
    return [{k: v for k, v in row.items() if k != "seconds"} for row in directory.rounds()]


def read_checkpoint(directory: RunDirectory) -> Checkpoint:
    """Return the newest checkpoint.

    Raises:
        FedltError: If there is no checkpoint.
    """
    found = load_checkpoint(directory.checkpoints)
    if found is None:
        raise FedltError(f"{directory.checkpoints}: no checkpoint")
    return found


def read_personal(directory: RunDirectory) -> PersonalStates:
    """Return the personal states of the newest checkpoint by cid."""
    checkpoint, states = read_checkpoint(directory), PersonalStates()
    states.spill_to(state_folder(directory.checkpoints), PERSONAL_MEMORY)
    snapshot = Snapshot(checkpoint.files, checkpoint.tensors["personal"])
    states.restore(snapshot, round=checkpoint.round)
    return states


def read_groups(directory: RunDirectory) -> dict[str, Mapping[str, Tensor]]:
    """Return the tensors of the newest checkpoint, with every client's personal state."""
    tensors = read_checkpoint(directory).tensors
    personal = read_personal(directory)
    groups: dict[str, Mapping[str, Tensor]] = {
        name: group for name, group in tensors.items() if name != "personal"
    }
    return groups | {f"personal/{cid}": state for cid, state in personal.items()}


def read_bits(directory: RunDirectory) -> dict[str, Any]:
    """Return all results that must not depend on the engine: rounds, tensors as bytes, counts."""
    tensors = {
        f"{group}/{name}": (str(t.dtype), tuple(t.shape), t.numpy().tobytes())
        for group, named in read_groups(directory).items()
        for name, t in named.items()
    }
    meta = read_checkpoint(directory).meta
    kept = {name: meta[name] for name in ("server", "excluded", "faults", "norms")}
    return {"rows": read_rows(directory), "meta": json.dumps(kept, sort_keys=True), **tensors}


class StopError(BaseException):
    """Error that ends a run, as a crash would."""


class StopAfter(Progress):
    """Progress that raises :class:`StopError` when a round is finished."""

    def __init__(self, last: int) -> None:
        self.last = last

    def advance(self, round: int, text: str = "") -> None:
        """Raise after the round at which the run is to stop."""
        if round == self.last:
            raise StopError


@dataclass(frozen=True)
class Finished:
    """Files of a finished run, read before the temporary folder is removed."""

    result: dict[str, Any]  # result.json
    rows: list[dict[str, Any]]  # rounds.jsonl without seconds
    groups: dict[str, dict[str, Tensor]]  # the tensors of its last checkpoint
    bits: dict[str, Any]

    def differs_from(self, other: Finished) -> str:
        """Return the name of a file or tensor in which two runs differ; empty if equal."""
        for name in sorted({*self.bits, *other.bits}, key=lambda name: name == "rows"):
            if self.bits.get(name) != other.bits.get(name):
                return name
        return ""


def run_whole(config: Config, *, stop_after: int | None = None) -> Finished:
    """Return the finished run of a configuration, in a temporary folder.

    Args:
        config: The run.
        stop_after: The round after which the run is stopped hard and resumed.
    """
    with tempfile.TemporaryDirectory(prefix="fedlt-check-") as folder:
        config = config.model_copy(update={"output": folder})
        if stop_after is not None:
            with suppress(StopError):
                run(config, progress=StopAfter(stop_after))
        result = run(config, resume=stop_after is not None)
        directory = RunDirectory.of(config)
        groups = {
            group: {name: tensor.clone() for name, tensor in named.items()}
            for group, named in read_groups(directory).items()
        }
        return Finished(result, read_rows(directory), groups, read_bits(directory))


class ApartEngine(Engine):
    """Engine that does every job with a new worker, from pickled parties, the last job first.

    So jobs in this process share no more state than jobs in several processes.
    """

    def __init__(self, parties: Parties) -> None:
        super().__init__(parties)
        self._pickled = pickle.dumps((parties.shares, parties.observer))

    def _host(self) -> Host:
        return Host(*pickle.loads(self._pickled))

    def _do(self, job: Job) -> JobResult:
        host = self._host()
        return run_job(make_client_app(lambda: host.worker), job)

    def run_jobs(self, jobs: Sequence[Job]) -> Iterator[JobResult]:
        """Run the jobs backwards and yield their results in order."""
        yield from reversed([self._do(job) for job in reversed(jobs)])

    def run_scores(self, requests: Sequence[ScoreRequest]) -> Iterator[Scores]:
        """Score the requests backwards and yield the answers in order."""
        yield from reversed([self._host().score(request) for request in reversed(requests)])
