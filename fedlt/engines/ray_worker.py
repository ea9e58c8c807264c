"""The Ray actor: a process with one scratch model, made when the clients' shares arrive.

An actor outlives its run: the next run of the driver's process sets the actor up anew.
:meth:`RayWorker.rest` resets an actor to the state of a new actor, except for imported modules.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from mmap import mmap
from typing import TYPE_CHECKING

import numpy as np
import ray
import torch
from flwr.app import ArrayRecord, Context, Message, RecordDict

from fedlt.config.loading import add_import_paths, check_packages
from fedlt.engines.engine import Job, JobResult, run_job
from fedlt.engines.shared_memory import Address, SharedMemory, SharedValue, Slot, open_memory
from fedlt.flower.records import tensors_of
from fedlt.flower.replies import keep_reply
from fedlt.machine.heap import give_back_freed_memory, keep_freed_memory
from fedlt.machine.peak_memory import peak_memory, reset_peak_memory

if TYPE_CHECKING:
    from fedlt.evaluation.request import ScoreRequest, Scores
    from fedlt.federation import ClientShares, Observer


@dataclass(frozen=True)
class SharedRecord:
    """A record that many messages share; another record of the same name has another version."""

    version: int
    record: SharedValue | ray.ObjectRef[ArrayRecord]

    def read(self, memory: mmap | None) -> ArrayRecord:
        """Return the record, mapped and not copied."""
        if isinstance(self.record, SharedValue):
            assert memory is not None
            found: ArrayRecord = self.record.value(memory)
            return found
        return ray.get(self.record)


@dataclass(frozen=True)
class TimedResult:
    """Result of a job, with its cost."""

    replies: list[Message] | SharedValue
    contexts: list[Context]
    seconds: float  # of the worker
    size: int  # bytes of all tensors
    reply_size: int  # bytes of the replies' tensors

    def result(self, memory: SharedMemory | None) -> JobResult:
        """Return the result; replies in shared memory are valid until their slot is given back."""
        if isinstance(self.replies, SharedValue):
            assert memory is not None
            return JobResult(self.replies.value(memory.bytes), self.contexts)
        return JobResult(self.replies, self.contexts)


class RayWorker:
    """Worker that does jobs and scorings in turn. A lost worker loses no state of the run."""

    def __init__(self, paths: Sequence[str]) -> None:
        check_packages()
        add_import_paths(paths)  # where the driver has found the classes of the run
        keep_freed_memory()
        self._generator = torch.get_rng_state()  # state in a new process
        self._records: dict[str, tuple[int, ArrayRecord]] = {}  # name -> (version, record)

    def setup(self, held: tuple[ClientShares, Observer], address: Address | None) -> bool:
        """Build the scratch model; the worker gets the shares, the scorer the observer.

        Returns:
            True if this process can map the memory that the driver shares.
        """
        from fedlt.flower.client_app import make_client_app
        from fedlt.flower.mods import load_mods
        from fedlt.worker.scorer import Host
        from fedlt.worker.worker import prepare_process

        prepare_process()
        self._host = Host(*held)
        if held[0].config.engine.compile:
            self._host.worker.compile()
        self._app = make_client_app(lambda: self._host.worker, load_mods(held[0].config))
        return address is not None and open_memory(address) is not None

    def rest(self) -> None:
        """Forget the run: model, data, records, peak memory, and states of random generators.

        Afterwards the global random generators are those of a new process.
        """
        self._records.clear()
        open_memory.cache_clear()
        if hasattr(self, "_host"):
            del self._host, self._app
            give_back_freed_memory()
        torch.set_rng_state(self._generator)
        random.seed()
        np.random.seed()
        reset_peak_memory()

    def _read(
        self, shared: Mapping[str, SharedRecord], memory: mmap | None
    ) -> dict[str, ArrayRecord]:
        """Return the shared records of a call; those of the last call are kept."""
        kept = {
            name: held
            for name, held in self._records.items()
            if name in shared and held[0] == shared[name].version
        }
        self._records = kept  # before others are mapped: the last round's memory is free by then
        for name, record in shared.items():
            if name not in kept:
                kept[name] = record.version, record.read(memory)
        return {name: kept[name][1] for name in shared}

    def peak_memory(self) -> int | None:
        """Return the peak memory of this process in bytes."""
        return peak_memory()

    def run(
        self,
        jobs: Sequence[Job],
        shared: Mapping[str, SharedRecord],
        address: Address | None,
        slots: Sequence[Slot | None],
    ) -> list[TimedResult]:
        """Return the results of jobs, done in order.

        Args:
            jobs: The jobs.
            shared: Records that belong to every message, by name.
            address: Of memory that the driver shares; None if it shares none.
            slots: For each job a slot there for the replies, or None.
        """
        memory = None if address is None else open_memory(address)
        records = self._read(shared, memory)
        return [
            self._run(job, records, memory, slot, is_last=job is jobs[-1])
            for job, slot in zip(jobs, slots, strict=True)
        ]

    def _run(
        self,
        job: Job,
        shared: dict[str, ArrayRecord],
        memory: mmap | None,
        slot: Slot | None,
        *,
        is_last: bool,
    ) -> TimedResult:
        start = time.perf_counter()
        for message in job.messages:
            message.content.update(shared)
        result = run_job(self._app, job, live=is_last or slot is not None)
        reply_size = sum(_size(reply.content) for reply in result.replies)
        size = reply_size + sum(_size(context.state) for context in result.contexts)
        replies: list[Message] | SharedValue | None = None
        if memory is not None and slot is not None:
            replies = SharedValue.of(result.replies, memory, slot)
        if replies is None:
            is_owned = is_last or slot is None
            replies = result.replies if is_owned else [*map(keep_reply, result.replies)]
        seconds = time.perf_counter() - start
        return TimedResult(replies, result.contexts, seconds, size, reply_size)

    def score(
        self,
        request: ScoreRequest,
        personal: list[ArrayRecord],
        shared: Mapping[str, SharedRecord],
        address: Address | None,
    ) -> list[Scores]:
        """Return the scores of one request, whose tensors are separate arguments."""
        memory = None if address is None else open_memory(address)
        models = {n: tensors_of(record) for n, record in self._read(shared, memory).items()}
        records = iter(personal)
        clients = tuple(
            c if c.personal is None else replace(c, personal=tensors_of(next(records)))
            for c in request.clients
        )
        light: Callable[..., ScoreRequest] = replace
        return [self._host.score(light(request, clients=clients, **models))]


def _size(content: RecordDict) -> int:
    """Return the bytes of all tensors."""
    records = [record for record in content.values() if isinstance(record, ArrayRecord)]
    return sum(tensor.nbytes for record in records for tensor in tensors_of(record).values())
