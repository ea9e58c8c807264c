"""The Ray engine: one actor per worker, each with one scratch model.

Records that every message of a round shares (the broadcast, the fixed part) are written once, and
workers map them without a copy. Replies come back as buffers that the driver maps and adds in
cohort order. Both lie in memory that workers of this machine share with the driver
(:mod:`fedlt.engines.shared_memory`), else in Ray's object store. A call to a worker has one job, or
several short ones (:mod:`fedlt.engines.ray_pace`). The pool replaces workers that die. Where a
round takes less than a second, the driver does the jobs until the first worker is up, since Ray
and workers need seconds to start.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

import ray
from flwr.app import ArrayRecord

from fedlt.config.identity import code_digests
from fedlt.config.loading import import_paths, user_modules
from fedlt.engines.engine import Engine, Job, JobResult
from fedlt.engines.probe import Estimate, Probe
from fedlt.engines.ray_cluster import (
    check_address,
    count_places,
    count_workers,
    local_workers,
    start_ray,
)
from fedlt.engines.ray_pace import Pace
from fedlt.engines.ray_pool import ActorPool
from fedlt.engines.ray_worker import RayWorker, SharedRecord
from fedlt.engines.serial import SerialEngine
from fedlt.engines.shared_memory import Address, AnswerSlots, Areas, SharedMemory
from fedlt.flower.records import array_record, record_dict, with_content

if TYPE_CHECKING:
    from fedlt.config import EngineConfig
    from fedlt.evaluation.request import ScoreRequest, Scores
    from fedlt.federation import Parties
    from fedlt.flower.adapter import ServerHalf

START_SECONDS = 5.0  # start of Ray and workers, beyond the driver's own work at that time
SHORT_ROUND = 1.0  # seconds in one process: the driver does not wait for workers


class RayEngine(Engine):
    """Engine that runs client tasks on Ray actors."""

    @classmethod
    def prepare(cls, config: EngineConfig) -> None:
        """Begin to start Ray."""
        if config.address is not None:
            check_address(config.address)
        start_ray(config)

    @classmethod
    def estimate(cls, server: ServerHalf, parties: Parties, probe: Probe) -> Estimate:
        """Return the cost: tasks in parallel, messages in turn (benchmarks/engine_overhead.py)."""
        workers = local_workers(parties.view.config.engine)
        at_once = min(workers, probe.cohort)
        tasks = max(probe.cohort * probe.task_seconds / at_once, probe.longest_seconds)
        messages = probe.cohort * (1e-3 + 1.5e-9 * probe.parameters)
        scoring = probe.evaluations * probe.evaluation_seconds + probe.personal_seconds
        seconds = START_SECONDS + probe.rounds * (tasks + messages) + scoring / workers
        memory = probe.memory + workers * (probe.memory - probe.data)
        return Estimate(seconds, memory, at_once)

    def __init__(self, parties: Parties) -> None:
        super().__init__(parties)
        self._start = start_ray(parties.view.config.engine)
        self._stand_in: SerialEngine | None = None  # does the jobs until a worker is up
        self._sent: dict[str, tuple[ArrayRecord, SharedRecord]] = {}
        self._versions = itertools.count()
        self._pace = Pace()
        self._memory: SharedMemory | None = None
        self._areas, self._slots = Areas(), AnswerSlots()
        self._largest = 0  # bytes of the largest replies to a job so far

    def rehearse(self, server: ServerHalf, probe: Probe | None = None) -> None:
        """Let the driver begin if a round is short and no worker is up; else wait for Ray."""
        if probe is not None and self._is_short(server, probe):
            self._stand_in = SerialEngine(self.parties)
        else:
            self._pool.check()

    def _is_short(self, server: ServerHalf, probe: Probe) -> bool:
        """Return True if the driver may do a round in less time than a worker takes to start."""
        config = self.parties.view.config.engine
        if config.address is not None or config.gpus_per_worker or config.compile:
            return False
        serial = SerialEngine.estimate(server, self.parties, probe)
        return serial.seconds < SHORT_ROUND * probe.rounds

    @cached_property
    def _pool(self) -> ActorPool:
        """Workers of this run, which start when they are first asked for."""
        parties, config = self.parties, self.parties.view.config.engine
        self._start.wait()
        for module in user_modules():
            ray.cloudpickle.register_pickle_by_value(module)  # type: ignore[no-untyped-call]
        on_cluster = config.address is not None
        actor: Any = ray.remote(RayWorker).options(
            num_cpus=config.cpus_per_worker if on_cluster else 0,
            num_gpus=config.gpus_per_worker,
        )
        shared, paths = ray.put((parties.shares, parties.observer)), import_paths()
        self._kind = (config.gpus_per_worker, *paths, json.dumps(code_digests(parties.view.config)))
        workers = count_workers(config)
        self._start.check()
        is_local = self._start.folder is not None and not on_cluster
        self._memory = SharedMemory.make() if is_local else None
        address = self._address
        kept = self._start.crew.take(self._kind, workers)

        def hire() -> tuple[Any, Any]:
            worker = kept.pop() if kept else actor.remote(paths)
            return worker, worker.setup.remote(shared, address)

        return ActorPool(
            hire,
            workers,
            count_places=lambda: count_places(config),
            check=self._start.check,
            is_remote=on_cluster,
        )

    def _find_stand_in(self) -> SerialEngine | None:
        """Return the driver's own engine as long as no worker is up."""
        if self._stand_in is not None and self._start.done.is_set() and self._pool.is_up():
            self._stand_in = None
        return self._stand_in

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Keep the actors for the next run of this process, or end them; the cluster stays up.

        Raises:
            StoppedError: If Ray has stopped, in place of errors that follow from the stop.
        """
        self._start.keep_logs |= isinstance(error, Exception)
        if "_pool" not in vars(self):  # the driver has done everything
            return
        if self._memory is not None:
            self._memory.close()
        if error is None and self._start.servers and not self._pool.is_remote:
            self._pool.close(partial(self._start.crew.add, self._kind))
        else:
            self._pool.close()
        if isinstance(error, Exception):
            self._start.check()

    def peak_memory(self) -> int | None:
        """Return the sum of all processes' peaks; memory shared by processes counts in each."""
        own = super().peak_memory()
        if "_pool" not in vars(self):
            return own
        found = self._pool.ask(lambda worker: worker.peak_memory.remote())
        known = [peak for peak in (own, *found) if peak is not None]
        return sum(known) if len(known) == 1 + len(found) else None

    @property
    def _address(self) -> Address | None:
        return None if self._memory is None else self._memory.address

    def _usable_memory(self) -> SharedMemory | None:
        """Return the memory if a worker is up, and all that have come up can map it."""
        known = self._pool.setups
        return self._memory if known and all(known) else None

    def _share(
        self, records: dict[str, ArrayRecord], memory: SharedMemory | None
    ) -> dict[str, SharedRecord]:
        """Write new records where workers find them, and return all of them for the workers."""
        self._pool.check()
        for name, record in records.items():
            if name not in self._sent or self._sent[name][0] is not record:
                stored = None if memory is None else self._areas.write(name, record, memory)
                place = ray.put(record) if stored is None else stored
                self._sent[name] = record, SharedRecord(next(self._versions), place)
        return {name: self._sent[name][1] for name in records}

    def run_jobs(self, jobs: Sequence[Job]) -> Iterator[JobResult]:
        """Run the jobs and yield the results in order."""
        done = 0
        while done < len(jobs) and (driver := self._find_stand_in()):
            yield from driver.run_jobs(jobs[done : done + 1])
            done += 1
        if done < len(jobs):
            yield from self._run_jobs(jobs[done:])

    def _run_jobs(self, jobs: Sequence[Job]) -> Iterator[JobResult]:
        """Run the jobs on the workers, starting with the most images."""
        shared, memory = _shared_records(jobs), self._usable_memory()
        sent = self._share(shared, memory)
        sizes = self.parties.shares.sizes
        images = [int(sum(sizes[m.metadata.dst_node_id] for m in job.messages)) for job in jobs]

        def submit(worker: Any, positions: Sequence[int]) -> Any:  # noqa: ANN401 (Ray has no types)
            light = [_without(jobs[position], shared) for position in positions]
            slots = [self._slots.take(p) if jobs[p].reduce else None for p in positions]
            return worker.run.remote(light, sent, self._address, slots)

        def group(waiting: Sequence[int], workers: int) -> int:
            return self._pace.group([images[position] for position in waiting], workers)

        self._slots.begin(0 if memory is None else self._largest)
        self._pace.begin()
        order = sorted(range(len(jobs)), key=lambda position: (-images[position], position))
        answers = self._pool.run(submit, order, lambda position: _name(jobs[position]), group)
        for position, (number, answer) in enumerate(zip(images, answers, strict=True)):
            self._pace.learn(number, answer.seconds, answer.size)
            self._largest = max(self._largest, answer.reply_size)
            yield answer.result(memory)
            self._slots.give_back(position)

    def run_scores(self, requests: Sequence[ScoreRequest]) -> Iterator[Scores]:
        """Score the requests and yield the answers in order."""
        done = 0
        while done < len(requests) and (driver := self._find_stand_in()):
            yield from driver.run_scores(requests[done : done + 1])
            done += 1
        if done < len(requests):
            yield from self._run_scores(requests[done:])

    def _run_scores(self, requests: Sequence[ScoreRequest]) -> Iterator[Scores]:
        first, models = requests[0], ("broadcast", "fixed", "private_mean")
        records = {name: array_record(getattr(first, name)) for name in models}
        sent = self._share(records, self._usable_memory())

        def submit(worker: Any, positions: Sequence[int]) -> Any:  # noqa: ANN401 (Ray has no types)
            (request,) = (requests[position] for position in positions)
            own = [array_record(c.personal) for c in request.clients if c.personal is not None]
            bare = tuple(
                replace(c, personal=None if c.personal is None else {}) for c in request.clients
            )
            light = replace(request, clients=bare, broadcast={}, fixed={}, private_mean={})
            return worker.score.remote(light, own, sent, self._address)

        def name(position: int) -> str:
            cids = ", ".join(str(client.cid) for client in requests[position].clients)
            return f"evaluation after round {requests[position].round}, clients {cids or 'none'}"

        yield from self._pool.run(submit, range(len(requests)), name)


def _name(job: Job) -> str:
    """Return the name of a job in an error."""
    cids = ", ".join(str(message.metadata.dst_node_id) for message in job.messages)
    word = "client" if len(job.messages) == 1 else "clients"
    return f"{word} {cids}, round {job.messages[0].metadata.group_id}"


def _shared_records(jobs: Sequence[Job]) -> dict[str, ArrayRecord]:
    """Return the array records that all messages share as the same object."""
    messages = [message for job in jobs for message in job.messages]
    first = messages[0].content.array_records if messages else {}
    return {
        name: record
        for name, record in first.items()
        if all(message.content.get(name) is record for message in messages)
    }


def _without(job: Job, shared: dict[str, ArrayRecord]) -> Job:
    """Return the job without the shared records in its messages."""
    messages = []
    for message in job.messages:
        rest = {name: record for name, record in message.content.items() if name not in shared}
        messages.append(with_content(message, record_dict(rest)))
    return replace(job, messages=messages)
