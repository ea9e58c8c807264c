"""An engine is a Flower ``Grid`` that runs client tasks. It knows no algorithm by name.

A job is a contiguous piece of the cohort; the worker of a job sums its clients' replies. Jobs
depend on the cohort size only, and the server adds their sums in cohort order, so the bits of a run
do not depend on the number of workers. To add an engine, subclass :class:`Engine` and write
``run_jobs`` and ``run_scores``.
"""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Self

from flwr.app import ArrayRecord, Context, Message, RecordDict
from flwr.app.user_config import UserConfig
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from fedlt.errors import RunError
from fedlt.flower.records import array_record, tensors_of
from fedlt.flower.replies import keep_reply, sum_replies
from fedlt.machine.lazy import Lazy
from fedlt.machine.peak_memory import peak_memory, reset_peak_memory
from fedlt.runs.personal_states import PersonalStates

if TYPE_CHECKING:
    from flwr.clientapp import ClientApp

    from fedlt.config import EngineConfig
    from fedlt.engines.probe import Estimate, Probe
    from fedlt.evaluation.request import ScoreRequest, Scores
    from fedlt.federation import Parties
    from fedlt.flower.adapter import ServerHalf

MAX_CHUNKS = 64  # a cohort is summed in at most this many pieces: one client each up to 64 clients


def chunk_size(cohort_size: int) -> int:
    """Return the number of clients whose updates are summed in one job, from the cohort size."""
    return max(1, -(-cohort_size // MAX_CHUNKS))


@dataclass(frozen=True)
class Job:
    """Messages that one worker answers, and the clients' contexts for the answers."""

    messages: list[Message]
    contexts: Sequence[Context]  # copies: a job that is lost or run twice leaves no trace
    reduce: bool  # sum the replies into one


@dataclass(frozen=True)
class JobResult:
    """Result of a job: replies and contexts."""

    replies: list[Message]  # one per message, or their sum
    contexts: list[Context]  # after the app's answers


def run_job(app: ClientApp, job: Job, *, live: bool = False) -> JobResult:
    """Return the result of a job: answer its messages one by one, and sum replies as they come.

    Args:
        app: The client app.
        job: The messages.
        live: Leave the tensors of a reply in the scratch model, without a copy, for a job that
            reduces one message; the caller must use the reply before the app's next task.
    """
    pairs = zip(job.messages, job.contexts, strict=True)
    answered = ((answer(app, message, context), context) for message, context in pairs)
    return gather(job, answered, live=live)


def gather(
    job: Job, answered: Iterable[tuple[Message, Context]], *, live: bool = False
) -> JobResult:
    """Return the result of a job from its replies and the contexts after them."""
    contexts: list[Context] = []

    def replies() -> Iterator[Message]:
        for reply, context in answered:
            contexts.append(context)
            yield reply

    if job.reduce and len(job.messages) > 1:
        return JobResult([sum_replies(replies())], contexts)
    leave = live and job.reduce
    return JobResult([r if leave else keep_reply(r) for r in replies()], contexts)


def answer(app: ClientApp, message: Message, context: Context) -> Message:
    """Return the reply to one message; an error names the client and the round."""
    try:
        reply = app(message, context)
        if reply.has_error():  # of a mod of Flower's
            raise RunError(reply.error.reason or f"error {reply.error.code}")
        return reply
    except Exception as error:
        error.add_note(f"raised in client {context.node_id}, round {message.metadata.group_id}")
        raise


class Engine(Grid):
    """Flower ``Grid`` whose node ids are client ids; updates are summed where the tasks run."""

    exact: ClassVar[bool] = True  # the bits of the serial engine
    at_nodes: ClassVar[bool] = False  # personal states stay where the clients are

    @classmethod
    def prepare(cls, config: EngineConfig) -> None:
        """Begin slow set-up (such as Ray) in the background, before the data are prepared."""

    @classmethod
    def estimate(cls, server: ServerHalf, parties: Parties, probe: Probe) -> Estimate | None:
        """Return the estimated cost of a run; None if unknown, or if the engine cannot run it."""
        return None

    def __init__(self, parties: Parties) -> None:
        self.parties = parties
        self._run = Run.create_empty(run_id=1)
        self._states = PersonalStates()
        self._replies: dict[str, Message] = {}
        self._ids = itertools.count()
        reset_peak_memory()

    def __enter__(self) -> Self:
        TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = self._run.run_id
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Free what the engine holds."""

    def rehearse(self, server: ServerHalf, probe: Probe | None = None) -> None:
        """Try the requirements of this engine on a method, before anything is written.

        Args:
            server: The server, in the state from which the run begins.
            probe: The measured cost of the run; None if it was not measured.

        Raises:
            FedltError: If the engine cannot run the method.
        """

    def news(self) -> list[str]:
        """Return lines about the engine since the last call, such as a node that has failed."""
        return []

    def peak_memory(self) -> int | None:
        """Return the peak memory of this engine's processes in bytes; None if unknown."""
        return peak_memory()

    @abstractmethod
    def run_jobs(self, jobs: Sequence[Job]) -> Iterable[JobResult]:
        """Run every job and yield the results in the order of the jobs.

        The caller uses a result before the next result is computed.
        """

    @abstractmethod
    def run_scores(self, requests: Sequence[ScoreRequest]) -> Iterable[Scores]:
        """Score every request and yield the results in the order of the requests."""

    def train(self, tasks: Sequence[Message], *, reduce: bool) -> list[Message]:
        """Return the replies to a round's tasks, with ``reduce`` their sum as one reply."""
        if not tasks:
            return []
        return self.map_reduce(tasks) if reduce else self.send_and_receive(tasks)

    def map_reduce(self, messages: Iterable[Message]) -> list[Message]:
        """Return one reply: the sum of all replies, taken in chunks of contiguous positions."""
        listed = list(messages)
        size = chunk_size(len(listed))
        pieces = [listed[start : start + size] for start in range(0, len(listed), size)]
        return [sum_replies(self._train(pieces, reduce=True))]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Return one reply per message, in order; ``timeout`` is not used."""
        return list(self._train([[message] for message in messages], reduce=False))

    def _train(self, pieces: list[list[Message]], *, reduce: bool) -> Iterator[Message]:
        self._states.discard()
        cids = [[message.metadata.dst_node_id for message in piece] for piece in pieces]
        jobs = [
            Job(piece, Lazy(self.context, own), reduce)
            for piece, own in zip(pieces, cids, strict=True)
        ]
        for result in self.run_jobs(jobs):
            for context in result.contexts:
                record = context.state.get("personal")
                if isinstance(record, ArrayRecord):
                    self._states.stage(context.node_id, tensors_of(record))
            yield from result.replies

    def commit(self, cids: Iterable[int]) -> None:
        """Commit the personal states after the last messages, for these clients only."""
        self._states.commit(cids)

    def context(self, cid: int) -> Context:
        """Return a copy of client ``cid``'s context."""
        config: UserConfig = {
            "partition-id": cid,
            "num-partitions": self.parties.view.num_clients,
        }
        state = RecordDict()
        if cid in self._states:
            state["personal"] = array_record(self._states[cid])
        return Context(
            run_id=self._run.run_id, node_id=cid, node_config=config, state=state, run_config={}
        )

    def states(self) -> PersonalStates:
        """Return the committed personal states by client id."""
        return self._states

    def set_run(self, run: Run) -> None:
        """Set the Flower run."""
        self._run = run

    @property
    def run(self) -> Run:
        """Return the Flower run."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Return a new message."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Return the client ids, which are also the node ids."""
        return range(self.parties.view.num_clients)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Send messages and keep their replies until they are pulled."""
        listed = list(messages)
        ids = [str(next(self._ids)) for _ in listed]
        self._replies.update(zip(ids, self.send_and_receive(listed), strict=True))
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Return and forget the replies to these messages."""
        return [self._replies.pop(i) for i in message_ids if i in self._replies]
