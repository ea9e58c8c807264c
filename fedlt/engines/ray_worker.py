"""The Ray actor: a process with one scratch model, made when the clients' shares arrive.

An actor outlives its run: the next run of the driver's process sets the actor up anew.
:meth:`RayWorker.rest` resets an actor to the state of a new actor, except for imported modules.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import ray
import torch
from flwr.app import ArrayRecord, RecordDict

from fedlt.config.loading import add_import_paths, check_packages
from fedlt.engines.engine import Job, JobResult, run_job
from fedlt.flower.records import tensors_of
from fedlt.machine.heap import give_back_freed_memory, keep_freed_memory
from fedlt.machine.peak_memory import peak_memory, reset_peak_memory

if TYPE_CHECKING:
    from fedlt.evaluation.request import ScoreRequest, Scores
    from fedlt.federation import ClientShares, Observer

SharedRefs = dict[str, "ray.ObjectRef[ArrayRecord]"]


@dataclass(frozen=True)
class TimedResult:
    """Result of a job, with its cost."""

    result: JobResult
    seconds: float  # of the worker
    size: int  # bytes of all tensors


class RayWorker:
    """Worker that does jobs and scorings in turn. A lost worker loses no state of the run."""

    def __init__(self, paths: Sequence[str]) -> None:
        check_packages()
        add_import_paths(paths)  # where the driver has found the classes of the run
        keep_freed_memory()
        self._generator = torch.get_rng_state()  # state in a new process
        self._records: dict[str, tuple[Any, ArrayRecord]] = {}  # name -> (reference, record)

    def setup(self, held: tuple[ClientShares, Observer]) -> None:
        """Build the scratch model; the worker gets the shares, the scorer the observer."""
        from fedlt.flower.client_app import make_client_app
        from fedlt.flower.mods import load_mods
        from fedlt.worker.scorer import Host
        from fedlt.worker.worker import prepare_process

        prepare_process()
        self._host = Host(*held)
        self._app = make_client_app(lambda: self._host.worker, load_mods(held[0].config))

    def rest(self) -> None:
        """Forget the run: model, data, records, peak memory, and states of random generators.

        Afterwards the global random generators are those of a new process.
        """
        self._records.clear()
        if hasattr(self, "_host"):
            del self._host, self._app
            give_back_freed_memory()
        torch.set_rng_state(self._generator)
        random.seed()
        np.random.seed()
        reset_peak_memory()

    def share(self, refs: SharedRefs) -> None:
        """Map the records that the next calls share; records mapped before are kept."""
        kept = {name: held for name, held in self._records.items() if held[0] == refs.get(name)}
        self._records = kept  # before others are mapped: the last round's memory is free by then
        missing = [name for name in refs if name not in kept]
        records = ray.get([refs[name] for name in missing])
        kept.update({n: (refs[n], record) for n, record in zip(missing, records, strict=True)})

    def peak_memory(self) -> int | None:
        """Return the peak memory of this process in bytes."""
        return peak_memory()

    def run(self, jobs: Sequence[Job]) -> list[TimedResult]:
        """Return the results of jobs, done in order."""
        shared = {name: record for name, (_, record) in self._records.items()}
        return [self._run(job, shared, live=job is jobs[-1]) for job in jobs]

    def _run(self, job: Job, shared: dict[str, ArrayRecord], *, live: bool) -> TimedResult:
        start = time.perf_counter()
        for message in job.messages:
            message.content.update(shared)
        result = run_job(self._app, job, live=live)
        contents = [reply.content for reply in result.replies]
        states = [context.state for context in result.contexts]
        size = sum(map(_size, [*contents, *states]))
        return TimedResult(result, time.perf_counter() - start, size)

    def score(self, request: ScoreRequest, personal: list[ArrayRecord]) -> list[Scores]:
        """Return the scores of one request, whose personal tensors are a separate argument."""
        shared = {name: tensors_of(record) for name, (_, record) in self._records.items()}
        records = iter(personal)
        clients = tuple(
            c if c.personal is None else replace(c, personal=tensors_of(next(records)))
            for c in request.clients
        )
        light: Callable[..., ScoreRequest] = replace
        return [self._host.score(light(request, clients=clients, **shared))]


def _size(content: RecordDict) -> int:
    """Return the bytes of all tensors."""
    records = [record for record in content.values() if isinstance(record, ArrayRecord)]
    return sum(tensor.nbytes for record in records for tensor in tensors_of(record).values())
