"""The Ray engine: one actor per worker, each with one scratch model.

Records that every message of a round shares (the broadcast, the fixed part) go into the object
store once, and workers map the records without a copy, by one call a round. An unchanged record is
not put again. Replies come back as buffers that the driver maps and adds in cohort order. A call to
a worker has one job, or several short ones (:mod:`fedlt.engines.ray_pace`). The pool replaces
workers that die.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
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
from fedlt.engines.ray_worker import RayWorker
from fedlt.flower.records import array_record, record_dict, with_content

if TYPE_CHECKING:
    from fedlt.config import EngineConfig
    from fedlt.evaluation.request import ScoreRequest, Scores
    from fedlt.federation import Parties
    from fedlt.flower.adapter import ServerHalf

START_SECONDS = 5.0  # start of Ray and workers, beyond the driver's own work at that time


class RayEngine(Engine):
    """Engine that runs client tasks on Ray actors."""

    @classmethod
    def prepare(cls, config: EngineConfig) -> Callable[[], None]:
        """Begin to start Ray; the returned function waits for Ray."""
        if config.address is not None:
            check_address(config.address)
        return start_ray(config).wait

    @classmethod
    def estimate(cls, server: ServerHalf, parties: Parties, probe: Probe) -> Estimate:
        """Return the cost: tasks in parallel, messages in turn (benchmarks/engine_overhead.py)."""
        workers = local_workers(parties.view.config.engine)
        at_once = min(workers, probe.cohort)
        tasks = max(probe.cohort * probe.task_seconds / at_once, probe.longest_seconds)
        messages = probe.cohort * (4e-3 + 2.5e-9 * probe.parameters)
        scoring = probe.evaluations * probe.evaluation_seconds + probe.personal_seconds
        seconds = START_SECONDS + probe.rounds * (tasks + messages) + scoring / workers
        memory = probe.memory + workers * (probe.memory - probe.data)
        return Estimate(seconds, memory, at_once)

    def __init__(self, parties: Parties) -> None:
        super().__init__(parties)
        config = parties.view.config.engine
        self._start = start_ray(config)
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
        kept = self._start.crew.take(self._kind, workers)

        def hire() -> tuple[Any, Any]:
            worker = kept.pop() if kept else actor.remote(paths)
            return worker, worker.setup.remote(shared)

        self._pool = ActorPool(
            hire,
            workers,
            count_places=lambda: count_places(config),
            check=self._start.check,
            is_remote=on_cluster,
        )
        self._puts: dict[str, tuple[ArrayRecord, Any]] = {}
        self._pace = Pace()

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
        if error is None and self._start.servers and not self._pool.is_remote:
            self._pool.close(partial(self._start.crew.add, self._kind))
        else:
            self._pool.close()
        if isinstance(error, Exception):
            self._start.check()

    def peak_memory(self) -> int | None:
        """Return the sum of all processes' peaks; memory shared by processes counts in each."""
        own = super().peak_memory()
        found = self._pool.ask(lambda worker: worker.peak_memory.remote())
        known = [peak for peak in (own, *found) if peak is not None]
        return sum(known) if len(known) == 1 + len(found) else None

    def _share(self, records: dict[str, ArrayRecord]) -> None:
        """Put new records into the object store, and tell the workers."""
        self._start.check()
        for name, record in records.items():
            if name not in self._puts or self._puts[name][0] is not record:
                self._puts[name] = (record, ray.put(record))
        refs = {name: self._puts[name][1] for name in records}
        self._pool.tell(lambda worker: worker.share.remote(refs))

    def run_jobs(self, jobs: Sequence[Job]) -> Iterator[JobResult]:
        """Run the jobs, starting with the most images, and yield the results in order."""
        shared = _shared_records(jobs)
        self._share(shared)
        sizes = self.parties.shares.sizes
        images = [int(sum(sizes[m.metadata.dst_node_id] for m in job.messages)) for job in jobs]

        def submit(worker: Any, positions: Sequence[int]) -> Any:  # noqa: ANN401 (Ray has no types)
            return worker.run.remote([_without(jobs[position], shared) for position in positions])

        def group(waiting: Sequence[int], workers: int) -> int:
            return self._pace.group([images[position] for position in waiting], workers)

        self._pace.begin()
        order = sorted(range(len(jobs)), key=lambda position: (-images[position], position))
        answers = self._pool.run(submit, order, lambda position: _name(jobs[position]), group)
        for number, answer in zip(images, answers, strict=True):
            self._pace.learn(number, answer.seconds, answer.size)
            yield answer.result

    def run_scores(self, requests: Sequence[ScoreRequest]) -> Iterator[Scores]:
        """Score the requests and yield the answers in order."""
        if not requests:
            return
        models = ("broadcast", "fixed", "private_mean")
        self._share({name: array_record(getattr(requests[0], name)) for name in models})

        def submit(worker: Any, positions: Sequence[int]) -> Any:  # noqa: ANN401 (Ray has no types)
            (request,) = (requests[position] for position in positions)
            own = [array_record(c.personal) for c in request.clients if c.personal is not None]
            bare = tuple(
                replace(c, personal=None if c.personal is None else {}) for c in request.clients
            )
            light = replace(request, clients=bare, broadcast={}, fixed={}, private_mean={})
            return worker.score.remote(light, own)

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
