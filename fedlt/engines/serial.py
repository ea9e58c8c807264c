"""The serial engine: every task in this process, in turn. The reference for other engines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from fedlt.engines.engine import Engine, Job, JobResult, run_job
from fedlt.engines.probe import Estimate, Probe
from fedlt.flower.client_app import make_client_app
from fedlt.flower.mods import load_mods
from fedlt.machine.heap import keep_freed_memory
from fedlt.worker.scorer import Host
from fedlt.worker.worker import prepare_process

if TYPE_CHECKING:
    from fedlt.evaluation.request import ScoreRequest, Scores
    from fedlt.federation import Parties
    from fedlt.flower.adapter import ServerHalf


class SerialEngine(Engine):
    """Engine that runs client tasks in the driver's own process."""

    def __init__(self, parties: Parties) -> None:
        super().__init__(parties)
        prepare_process()
        keep_freed_memory()
        self._host = Host(parties.shares, parties.observer)
        if parties.view.config.engine.compile:
            self._host.worker.compile()
        self._app = make_client_app(lambda: self._host.worker, load_mods(parties.view.config))

    @classmethod
    def estimate(cls, server: ServerHalf, parties: Parties, probe: Probe) -> Estimate:
        """Return the cost: all tasks in turn, and messages (benchmarks/engine_overhead.py)."""
        message = 0.1e-3 + 1.2e-9 * probe.parameters
        round_ = probe.cohort * (probe.task_seconds + message)
        scoring = probe.evaluations * probe.evaluation_seconds + probe.personal_seconds
        return Estimate(probe.rounds * round_ + scoring, probe.memory, clients=1)

    def run_jobs(self, jobs: Sequence[Job]) -> Iterator[JobResult]:
        """Run the jobs in order."""
        for job in jobs:
            yield run_job(self._app, job, live=True)

    def run_scores(self, requests: Sequence[ScoreRequest]) -> Iterator[Scores]:
        """Score the requests in order."""
        for request in requests:
            yield self._host.score(request)
