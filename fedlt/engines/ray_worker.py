"""The Ray actor: a process with one scratch model, made when the clients' shares arrive.

An actor outlives its run: the next run of the driver's process sets it up anew. :meth:`rest` makes
it as a new actor is, but for the modules that it has imported.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import ray
import torch
from flwr.app import ArrayRecord

from fedlt.config.loading import add_import_paths, check_packages
from fedlt.engines.engine import Job, JobResult, run_job
from fedlt.flower.records import tensors_of
from fedlt.machine.heap import give_back_freed_memory, keep_freed_memory
from fedlt.machine.peak_memory import peak_memory, reset_peak_memory

if TYPE_CHECKING:
    from fedlt.evaluation.request import ScoreRequest, Scores
    from fedlt.federation import ClientShares, Observer

SharedRefs = dict[str, "ray.ObjectRef[ArrayRecord]"]


class RayWorker:
    """Does jobs and scores one after another. Nothing that it holds is needed to replace it."""

    def __init__(self, paths: Sequence[str]) -> None:
        check_packages()
        add_import_paths(paths)  # where the driver has found the classes of the run
        keep_freed_memory()
        self._generator = torch.get_rng_state()  # as every process has it in the beginning
        self._records: dict[str, tuple[Any, ArrayRecord]] = {}  # name -> (reference, what it says)

    def setup(self, held: tuple[ClientShares, Observer]) -> None:
        """Build the scratch model: its worker has the shares, its scorer the observer."""
        from fedlt.flower.client_app import make_client_app
        from fedlt.worker.scorer import Host
        from fedlt.worker.worker import prepare_process

        prepare_process()
        self._host = Host(*held)
        self._app = make_client_app(lambda: self._host.worker)

    def rest(self) -> None:
        """Forget the run: its model, data and records, its peak of memory, the generators' states.

        Afterwards random numbers that no key draws are those of a new process.
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
        """Map the records that the next calls share; those that are here already are kept."""
        kept = {name: held for name, held in self._records.items() if held[0] == refs.get(name)}
        self._records = kept  # before others are mapped: the last round's memory is free by then
        missing = [name for name in refs if name not in kept]
        records = ray.get([refs[name] for name in missing])
        kept.update({n: (refs[n], record) for n, record in zip(missing, records, strict=True)})

    def peak_memory(self) -> int | None:
        """Return the most bytes that this process held."""
        return peak_memory()

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
        return self._host.score(light(request, clients=clients, **shared))
