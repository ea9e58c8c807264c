"""The stacked engine: the clients of a cohort trained as one batched model, in this process.

The clients' tasks run side by side (lockstep.py), and clients with equal training requests are
trained as one (stack.py). template.py has the limits of an objective in a stack. Batched
arithmetic adds in another order, so results agree with the serial engine to a tolerance and not by
their bits; a run on this engine has the same bits every time, and when it is resumed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from flwr.app import Context, Message

from fedlt.engines.alike import group_alike
from fedlt.engines.engine import Engine, Job, JobResult, answer, gather
from fedlt.engines.lockstep import Task, TrainRequest, run_together
from fedlt.engines.probe import BATCHES, Estimate, Probe
from fedlt.engines.stack import Stack
from fedlt.engines.stack_rehearsal import rehearse_stack, time_stack
from fedlt.errors import FedltError
from fedlt.flower.client_app import make_client_app
from fedlt.flower.mods import load_mods
from fedlt.machine.heap import keep_freed_memory
from fedlt.worker.scorer import Host
from fedlt.worker.template import TemplateModel
from fedlt.worker.worker import Worker, prepare_process

if TYPE_CHECKING:
    from flwr.clientapp import ClientApp

    from fedlt.client import Trainer
    from fedlt.evaluation.request import ScoreRequest, Scores
    from fedlt.federation import Parties
    from fedlt.flower.adapter import ServerHalf
    from fedlt.models import Model

MAX_STACK = 32  # clients; more add little: by then the arithmetic, not the calls, takes the time
MEMORY = 2**30  # bytes of weights in a stack: model, stacked values, gradients, momentum


def stack_size(model: Model) -> int:
    """Return the most clients in a stack under ``engine.stack: auto``, from the model's size."""
    weights = sum(tensor.nbytes for tensor in model.state().values())
    return max(1, min(MAX_STACK, MEMORY // max(1, 4 * weights)))


class StackedEngine(Engine):
    """Engine that trains clients together in the driver's own process."""

    exact = False

    @classmethod
    def estimate(cls, server: ServerHalf, parties: Parties, probe: Probe) -> Estimate | None:
        """Return the cost, from a full stack on a few batches; None if it cannot be stacked."""
        engine = cls(parties)
        clients = min(engine._size, probe.cohort)
        try:
            engine.rehearse(server)
        except FedltError:
            return None
        seats = [engine._seat(position)[0] for position in range(clients)]
        batch = time_stack(server, seats, engine._template, batches=BATCHES)
        gain = batch / probe.batch_seconds if probe.batch_seconds else 1.0
        message = 1e-3 + 3e-9 * probe.parameters
        round_ = probe.cohort * (probe.task_seconds * gain + message)
        scoring = probe.evaluations * probe.evaluation_seconds + probe.personal_seconds
        seconds = probe.rounds * round_ + scoring
        return Estimate(seconds, probe.memory + clients * 16 * probe.parameters, clients)

    def __init__(self, parties: Parties) -> None:
        super().__init__(parties)
        prepare_process()
        keep_freed_memory()
        self._host = Host(parties.shares, parties.observer)
        self._template = TemplateModel(self._host.worker.model)
        size = parties.view.config.engine.stack
        self._size = stack_size(self._host.worker.model) if size == "auto" else size
        self._mods = load_mods(parties.view.config)
        self._seats: list[tuple[Worker, ClientApp]] = []

    def rehearse(self, server: ServerHalf, probe: Probe | None = None) -> None:
        """Train two clients on a few images, stacked and alone.

        Raises:
            FedltError: If the method cannot be stacked, with the reason.
        """
        if self.parties.view.config.engine.compile:
            raise FedltError(
                "engine.compile: engine.name=stacked trains many models as one, which PyTorch does "
                "not compile; take engine.name=serial or ray"
            )
        seats = [self._seat(position)[0] for position in range(2)]
        rehearse_stack(server, seats, self._template)

    def run_jobs(self, jobs: Sequence[Job]) -> Iterator[JobResult]:
        """Run the jobs; a stack may hold the clients of several jobs."""
        answered = self._answer_all(jobs)
        for job in jobs:
            own = itertools.islice(answered, len(job.messages))
            yield gather(job, own, live=True)

    def run_scores(self, requests: Sequence[ScoreRequest]) -> Iterator[Scores]:
        """Score the requests in order, as the serial engine does."""
        for request in requests:
            yield self._host.score(request)

    def _answer_all(self, jobs: Sequence[Job]) -> Iterator[tuple[Message, Context]]:
        """Yield every reply and its context; replies of a stack live until the next stack."""
        pairs = (pair for job in jobs for pair in zip(job.messages, job.contexts, strict=True))
        total = sum(len(job.messages) for job in jobs)
        stacks = -(-total // self._size)
        for number in range(stacks):
            start, stop = (total * n // stacks for n in (number, number + 1))
            stack = list(itertools.islice(pairs, stop - start))
            replies = self._answer_together(stack)
            yield from zip(replies, [context for _, context in stack], strict=True)

    def _answer_together(self, pairs: Sequence[tuple[Message, Context]]) -> list[Message]:
        tasks = [Task(partial(self._answer, number, *pair)) for number, pair in enumerate(pairs)]
        return run_together(tasks, self._train_requests)

    def _answer(
        self, position: int, message: Message, context: Context, trainer: Trainer
    ) -> Message:
        worker, app = self._seat(position)
        worker.trainer = trainer
        return answer(app, message, context)

    def _train_requests(self, requests: list[TrainRequest]) -> None:
        for group in group_alike(requests):
            try:
                Stack(self._template, group).train()
            except Exception as error:
                cids = [request.client.cid for request in group]
                error.add_note(f"raised in the stack of clients {cids}")
                raise

    def _seat(self, position: int) -> tuple[Worker, ClientApp]:
        """Return worker and client app of the client at a position of a stack."""
        while len(self._seats) <= position:
            worker = self._host.worker.twin()
            self._seats.append((worker, make_client_app(partial(_itself, worker), self._mods)))
        return self._seats[position]


def _itself(worker: Worker) -> Worker:
    return worker
