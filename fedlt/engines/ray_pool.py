"""Pool of Ray actors of constant size: a dead actor is replaced, and its work is done again.

An actor dies with its process (killed, out of memory) or with its node. Work is a list of jobs by
position; results come in the order of positions, whichever actor does a job. A job that raises an
exception is not tried again, since the exception would be raised again.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import ray
from ray import exceptions

from fedlt.errors import FedltError, RunError

MAX_DEATHS = 3  # dead workers after which a job, or the set-up, is given up
PATIENCE = 30.0  # seconds without an answer, after which the pool looks for places
LOOK = 0.5  # seconds after which a pool that waits looks whether Ray is there
GRACE = 5.0  # seconds for answers that are optional, or that a dead worker has left behind

_LOST = (
    exceptions.RayActorError,
    exceptions.WorkerCrashedError,
    exceptions.NodeDiedError,
    exceptions.OutOfMemoryError,
    exceptions.ObjectLostError,  # the answer was lost with its node
)
_LOG = logging.getLogger(__name__)

Submit = Callable[[Any, Sequence[int]], Any]
Group = Callable[[Sequence[int], int], int]


def _singly(waiting: Sequence[int], members: int) -> int:
    return 1


@dataclass(eq=False)
class Member:
    """Actor of the pool."""

    actor: Any
    setup: Any  # reference of the set-up call
    ready: bool = False
    held: int = 0  # calls at this member


class ActorPool:
    """Pool of actors that do jobs."""

    def __init__(
        self,
        hire: Callable[[], tuple[Any, Any]],
        size: int,
        *,
        count_places: Callable[[], int],
        check: Callable[[], None],
        is_remote: bool,
    ) -> None:
        """Start the actors.

        Args:
            hire: Starts an actor and its set-up: returns its handle and the set-up's reference.
            size: Number of actors.
            count_places: Returns how many actors the present nodes could hold.
            check: Raises if Ray has stopped; called before every call of Ray.
            is_remote: True if answers may lie on other machines.
        """
        self._hire, self._count_places, self.is_remote = hire, count_places, is_remote
        self.check = check
        self.setups: list[Any] = []  # answers to all set-ups so far
        self._failed_setups = 0
        self.members = [Member(*hire()) for _ in range(size)]

    def is_up(self) -> bool:
        """Return True if a member is ready; do not wait."""
        self.check()
        new = {member.setup: member for member in self.members if not member.ready}
        for ref in ray.wait([*new], num_returns=len(new), timeout=0)[0] if new else []:
            self.welcome(new[ref])
        return any(member.ready for member in self.members)

    def ask(self, call: Callable[[Any], Any]) -> list[Any]:
        """Return the answers of the ready members; silent members are left out."""
        try:
            self.check()
        except RunError:
            return []
        asked = [call(member.actor) for member in self.members if member.ready]
        if not asked:
            return []
        answers = []
        for answered in ray.wait(asked, num_returns=len(asked), timeout=GRACE)[0]:
            with suppress(exceptions.RayError):
                answers.append(ray.get(answered))
        return answers

    def run(
        self,
        submit: Submit,
        order: Sequence[int],
        name: Callable[[int], str],
        group: Group = _singly,
    ) -> Iterator[Any]:
        """Do the jobs and yield their results in the order of positions.

        Args:
            submit: Gives an actor the jobs at some positions; returns the reference of the list of
                their results.
            order: Every position, in the order in which jobs are started.
            name: Returns the name of the job at a position, for errors.
            group: Returns how many of the waiting jobs, given by position, the next call does,
                from the first; the second argument is the number of actors.

        Raises:
            RunError: If a job costs the lives of ``MAX_DEATHS`` workers.
        """
        for member in self.members:
            member.held = 0  # calls of a list that was given up
        work = _Work(self, submit, deque(order), name, group)
        work.feed()
        for wanted in range(len(order)):
            while wanted not in work.finished:
                work.step()
            yield work.finished.pop(wanted)

    def welcome(self, member: Member) -> bool:
        """Return True if a member's set-up succeeded; replace a member that died."""
        self.check()
        try:
            answer = ray.get(member.setup)
        except _LOST as error:
            self._failed_setups += 1
            cause = _one_line(error)
            if getattr(error, "actor_init_failed", False):
                raise RunError(f"a Ray worker does not start: {cause}") from error
            if self._failed_setups == MAX_DEATHS:
                times = f"{MAX_DEATHS} Ray workers in a row died"
                raise RunError(f"{times} while they were set up: {cause}") from error
            self.replace(member)
            return False
        except exceptions.RayTaskError as error:
            if isinstance(error.cause, FedltError):  # without the worker's traceback
                raise error.cause from error
            raise
        self._failed_setups = 0
        self.setups.append(answer)
        member.ready = True
        return True

    def replace(self, member: Member) -> None:
        """Put a new actor in a member's place."""
        self.check()  # raises if the member has died with Ray
        ray.kill(member.actor)
        self.members[self.members.index(member)] = Member(*self._hire())

    def check_places(self) -> None:
        """Raise if no member works and no node could hold an actor."""
        if any(member.ready for member in self.members):
            return
        if self._count_places() == 0:
            raise RunError("no node of the Ray cluster has a place for a worker any more")
        place = "a place on the Ray cluster" if self.is_remote else "a Ray worker to start"
        _LOG.warning("waiting for %s", place)

    def close(self, end: Callable[[Any], None] = ray.kill) -> None:
        """Call ``end`` with every actor, unless Ray, and with Ray the actors, has stopped."""
        with suppress(RunError):
            for member in self.members:
                self.check()
                end(member.actor)


@dataclass
class _Work:
    """List of jobs in progress."""

    pool: ActorPool
    submit: Submit
    waiting: deque[int]
    name: Callable[[int], str]
    group: Group
    running: dict[Any, tuple[Member, list[int]]] = field(default_factory=dict)  # as submitted
    finished: dict[int, Any] = field(default_factory=dict)
    deaths: Counter[int] = field(default_factory=Counter)

    def feed(self) -> None:
        """Give every idle member one call, so that no job waits behind the longest job."""
        for member in self.pool.members:
            self._feed(member, 1)

    def _feed(self, member: Member, limit: int) -> None:
        """Give a member its next calls; the last jobs go to idle members only."""
        members = len(self.pool.members)
        while member.ready and self.waiting:
            if member.held >= (limit if len(self.waiting) > members else 1):
                return
            positions = self._next()
            self.pool.check()
            self.running[self.submit(member.actor, positions)] = (member, positions)
            member.held += 1

    def _next(self) -> list[int]:
        """Take the jobs of the next call; a job that has cost a worker's life goes alone."""
        fit = list(itertools.takewhile(lambda position: not self.deaths[position], self.waiting))
        number = self.group(fit, len(self.pool.members)) if fit else 1
        return [self.waiting.popleft() for _ in range(number)]

    def step(self) -> None:
        """Wait for one answer and process the answer."""
        new = {member.setup: member for member in self.pool.members if not member.ready}
        done: list[Any] = []
        deadline = time.monotonic() + PATIENCE
        while not done and time.monotonic() < deadline:
            self.pool.check()
            done, _ = ray.wait(
                [*self.running, *new],
                num_returns=1,
                timeout=min(LOOK, PATIENCE),
                fetch_local=self.pool.is_remote,
            )
        for ref in done:
            if ref in self.running:
                self._collect(ref)
            elif self.pool.welcome(new[ref]):
                self._feed(new[ref], 1)
        if not done:
            self.pool.check_places()

    def _collect(self, ref: Any) -> None:  # noqa: ANN401 (Ray references have no types)
        """Store one answer, after its member has got the next job."""
        member, positions = self.running[ref]
        member.held -= 1
        self._feed(member, 2)
        self.pool.check()
        try:
            self.finished |= zip(positions, ray.get(ref), strict=True)
            del self.running[ref]
        except _LOST as error:
            self._bury(member, error)

    def _bury(self, member: Member, error: Exception) -> None:
        """Replace a dead member; keep its finished answers, and queue its other jobs again."""
        self.pool.replace(member)
        refs = [ref for ref, (owner, _) in self.running.items() if owner is member]
        ray.wait(refs, num_returns=len(refs), timeout=GRACE, fetch_local=self.pool.is_remote)
        lost = []
        for ref in refs:
            _, positions = self.running.pop(ref)
            try:
                self.finished |= zip(positions, ray.get(ref, timeout=0), strict=True)
            except (*_LOST, exceptions.GetTimeoutError):
                lost.append(positions)
        self.waiting.extendleft(reversed([position for call in lost for position in call]))
        for position in itertools.chain(*lost[:1]):  # of the call at work when the member died
            self.deaths[position] += 1
            if self.deaths[position] == MAX_DEATHS:
                times = f"its worker died {MAX_DEATHS} times"
                raise RunError(f"{self.name(position)}: {times}: {_one_line(error)}") from error
        self.feed()


def _one_line(error: Exception) -> str:
    """Return Ray's message about a dead actor in one line."""
    return " ".join(str(error).split())[:500]
