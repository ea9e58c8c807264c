"""The Ray engine: one actor per worker, each with one scratch model.

Records that every message of a round shares (the broadcast, the fixed part) go into the object
store once and are mapped by the workers without a copy, by one call a round; a record that did not
change is not put again. Replies come back as buffers that the driver maps. The driver adds them in
cohort order.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any

import ray
from flwr.app import ArrayRecord, RecordDict

from fedlt.engines.base import Engine, Job, JobResult, run_job
from fedlt.engines.probe import Estimate, Probe
from fedlt.engines.ray_cluster import Start, start_ray
from fedlt.flower.records import array_record, tensors_of, with_content
from fedlt.loading import check_packages, user_modules

if TYPE_CHECKING:
    from fedlt.config import EngineConfig
    from fedlt.evaluation.request import ScoreRequest, Scores
    from fedlt.federation import Federation
    from fedlt.flower.adapter import ServerHalf

__all__ = ["RayEngine"]

START_SECONDS = 5.0  # of Ray and its workers, beyond what the driver does meanwhile
SharedRefs = dict[str, "ray.ObjectRef[ArrayRecord]"]


class RayWorker:
    """The actor: a process with one worker, made when the federation arrives."""

    def __init__(self) -> None:
        check_packages()
        from fedlt.engines.heap import keep_freed_memory
        from fedlt.worker import prepare_process

        prepare_process()
        keep_freed_memory()
        self._records: dict[str, tuple[Any, ArrayRecord]] = {}  # name -> (reference, what it says)

    def setup(self, federation: Federation) -> None:
        """Build the scratch model."""
        from fedlt.flower.client_app import make_client_app
        from fedlt.worker import Worker

        self._worker = Worker(federation)
        self._app = make_client_app(lambda: self._worker)

    def share(self, refs: SharedRefs) -> None:
        """Map the records that the next calls share; those that are here already are kept."""
        kept = {name: held for name, held in self._records.items() if held[0] == refs.get(name)}
        self._records = kept  # before others are mapped: the last round's memory is free by then
        missing = [name for name in refs if name not in kept]
        records = ray.get([refs[name] for name in missing])
        kept.update({n: (refs[n], record) for n, record in zip(missing, records, strict=True)})

    def run(self, job: Job) -> JobResult:
        """Run one job."""
        shared = {name: record for name, (_, record) in self._records.items()}
        for message in job.messages:
            message.content.update(shared)
        return run_job(self._app, job, live=True)

    def score(self, request: ScoreRequest, personal: list[ArrayRecord]) -> Scores:
        """Score one request, whose tensors travel beside it."""
        shared = {name: tensors_of(record) for name, (_, record) in self._records.items()}
        records = iter(personal)
        clients = tuple(
            c if c.personal is None else replace(c, personal=tensors_of(next(records)))
            for c in request.clients
        )
        light: Callable[..., ScoreRequest] = replace
        return self._worker.score(light(request, clients=clients, **shared))


class RayEngine(Engine):
    """Runs client tasks on Ray actors."""

    @classmethod
    def prepare(cls, config: EngineConfig) -> Callable[[], None]:
        """Begin to start Ray; the answer waits for it."""
        start: Start = start_ray(_count_workers(config), config.address)
        return start.wait

    @classmethod
    def estimate(cls, server: ServerHalf, probe: Probe) -> Estimate:
        """Tasks side by side, messages one by one (benchmarks/engine_overhead.py), a start."""
        workers = _count_workers(server.federation.config.engine)
        at_once = min(workers, probe.cohort)
        tasks = max(probe.cohort * probe.task_seconds / at_once, probe.longest_seconds)
        messages = probe.cohort * (4e-3 + 2.5e-9 * probe.parameters)
        evaluation = probe.evaluations * probe.evaluation_seconds / workers
        seconds = START_SECONDS + probe.rounds * (tasks + messages) + evaluation
        memory = probe.memory + workers * (probe.memory - probe.data)
        return Estimate(seconds, memory, at_once)

    def __init__(self, federation: Federation) -> None:
        super().__init__(federation)
        config = federation.config.engine
        start_ray(_count_workers(config), config.address).wait()
        for module in user_modules():
            ray.cloudpickle.register_pickle_by_value(module)  # type: ignore[no-untyped-call]
        actor: Any = ray.remote(RayWorker).options(num_cpus=1 if config.address else 0)
        self._workers = [actor.remote() for _ in range(_count_workers(config))]
        shared = ray.put(federation)
        self._ready = [worker.setup.remote(shared) for worker in self._workers]
        self._puts: dict[str, tuple[ArrayRecord, Any]] = {}
        self._is_remote = config.address is not None  # replies may lie on other machines

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the actors. The cluster stays up for the next run of this process."""
        for worker in self._workers:
            ray.kill(worker)

    def _share(self, records: dict[str, ArrayRecord]) -> None:
        """Put records into the object store, unless the very same one is there; tell the workers.

        An actor answers its calls in order, so the jobs that follow find the records there.
        """
        for name, record in records.items():
            if name not in self._puts or self._puts[name][0] is not record:
                self._puts[name] = (record, ray.put(record))
        refs = {name: self._puts[name][1] for name in records}
        self._ready += [worker.share.remote(refs) for worker in self._workers]

    def run_jobs(self, jobs: Sequence[Job]) -> Iterator[JobResult]:
        """Run the jobs, those with most images first, and yield their results in order."""
        shared = _shared_records(jobs)
        self._share(shared)
        sizes = self.federation.data.client_counts.sum(axis=1)

        def images(position: int) -> int:
            return int(sum(sizes[m.metadata.dst_node_id] for m in jobs[position].messages))

        def submit(worker: Any, position: int) -> Any:  # noqa: ANN401 (Ray handles have no types)
            return worker.run.remote(_without(jobs[position], shared))

        order = sorted(range(len(jobs)), key=lambda position: (-images(position), position))
        yield from self._dispatch(submit, order)

    def run_scores(self, requests: Sequence[ScoreRequest]) -> Iterator[Scores]:
        """Score the requests and yield the answers in order."""
        if not requests:
            return
        models = ("broadcast", "fixed", "private_mean")
        self._share({name: array_record(getattr(requests[0], name)) for name in models})

        def submit(worker: Any, position: int) -> Any:  # noqa: ANN401 (Ray handles have no types)
            request = requests[position]
            own = [array_record(c.personal) for c in request.clients if c.personal is not None]
            bare = tuple(
                replace(c, personal=None if c.personal is None else {}) for c in request.clients
            )
            light = replace(request, clients=bare, broadcast={}, fixed={}, private_mean={})
            return worker.score.remote(light, own)

        yield from self._dispatch(submit, list(range(len(requests))))

    def _dispatch(self, submit: Callable[[Any, int], Any], order: list[int]) -> Iterator[Any]:
        """Keep every worker busy; yield results by position.

        A worker has its next job before it ends one and does not wait for the driver, except for
        the last jobs, which go to workers that are idle.
        """
        waiting, running = deque(order), {}
        held = dict.fromkeys(self._workers, 0)  # jobs that a worker has
        finished: dict[int, Any] = {}

        def feed(worker: Any, limit: int) -> None:  # noqa: ANN401 (Ray handles have no types)
            while waiting and held[worker] < (limit if len(waiting) > len(held) else 1):
                position = waiting.popleft()
                running[submit(worker, position)] = (worker, position)
                held[worker] += 1

        for worker in self._workers:
            feed(worker, 1)  # nothing waits behind the longest jobs
        ray.get(self._ready)
        self._ready = []
        for wanted in range(len(order)):
            while wanted not in finished:
                (ref,), _ = ray.wait(list(running), num_returns=1, fetch_local=self._is_remote)
                worker, position = running.pop(ref)
                held[worker] -= 1
                feed(worker, 2)
                finished[position] = ray.get(ref)
            yield finished.pop(wanted)


def _count_workers(config: EngineConfig) -> int:
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return cores if config.workers == "auto" else config.workers


def _shared_records(jobs: Sequence[Job]) -> dict[str, ArrayRecord]:
    """Return the array records that are the same object in every message."""
    messages = [message for job in jobs for message in job.messages]
    first = messages[0].content.array_records if messages else {}
    return {
        name: record
        for name, record in first.items()
        if all(message.content.get(name) is record for message in messages)
    }


def _without(job: Job, shared: dict[str, ArrayRecord]) -> Job:
    """Return a job whose messages lack the shared records."""
    messages = []
    for message in job.messages:
        rest = {name: record for name, record in message.content.items() if name not in shared}
        messages.append(with_content(message, RecordDict(rest)))
    return replace(job, messages=messages)
