"""Engine around any other Flower ``Grid``: Flower's own simulation, or a deployment.

Node ids there are random 64-bit numbers; a roster knows which node is which client. Personal states
stay on the nodes: the server knows for each client the round of the state in force, and each node
scores its own personal model. A node that fails, or is late, costs its client's part of a round and
nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType
from flwr.serverapp import Grid

from fedlt.engines.engine import Engine, Job, JobResult, chunk_size
from fedlt.engines.exchange import exchange, reason_of
from fedlt.engines.roster import Roster
from fedlt.errors import FedltError, RunError
from fedlt.evaluation.request import ClientRequest, ScoreRequest, Scores
from fedlt.flower.node_app import FIXED, MEAN
from fedlt.flower.records import Records, array_record, record_dict, tensors_digest, tensors_of
from fedlt.flower.replies import hits_of, metric_lists, sum_replies
from fedlt.runs.personal_states import Snapshot
from fedlt.worker.scorer import Scorer

if TYPE_CHECKING:
    from fedlt.federation import Parties
    from fedlt.update import Tensors


class StatesAtNodes(Mapping[int, "Tensors"]):
    """Personal states by cid, in the order of first commits. Reading one asks its node for it."""

    def __init__(self, engine: ForeignEngine) -> None:
        self._engine = engine
        self.rounds: dict[int, int] = {}  # cid -> round of the state in force

    def __getitem__(self, cid: int) -> Tensors:
        return self._engine.fetch(cid, self.rounds[cid])

    def __iter__(self) -> Iterator[int]:
        return iter(self.rounds)

    def __len__(self) -> int:
        return len(self.rounds)

    def spill_to(self, folder: Path, mib: int) -> None:
        """Take no folder: the states take no memory here."""

    def flush(self) -> Snapshot:
        """Return for a checkpoint which node has which state; the states stay there."""
        table = {"cid": [], "file": [], "at_node": [*self.rounds], "round": [*self.rounds.values()]}
        return Snapshot((), {n: torch.tensor(v, dtype=torch.int64) for n, v in table.items()})

    def restore(self, snapshot: Snapshot, *, round: int) -> None:
        """Take back a snapshot.

        Raises:
            FedltError: If the states are in the checkpoint, where an engine of fedlt put them.
        """
        if len(snapshot.table["cid"]):
            raise FedltError(
                "the run was made on an engine of fedlt's, and its checkpoint holds personal "
                "states that no node has; fedlt run FILE --resume goes on with it"
            )
        nobody, table = torch.empty(0, dtype=torch.int64), snapshot.table
        cids, rounds = (table.get(name, nobody).tolist() for name in ("at_node", "round"))
        self.rounds = dict(zip(cids, rounds, strict=True))


class ForeignEngine(Engine):
    """Engine around a foreign grid: takes client ids, and sends to node ids.

    Args:
        grid: The grid.
        parties: The parties of the run, as the server has them.
        roster: The nodes, found.
        run: Short hash of the run's fingerprint, which states at nodes are kept under.
    """

    exact = False
    at_nodes = True

    def __init__(self, grid: Grid, parties: Parties, roster: Roster, run: str) -> None:
        super().__init__(parties)
        self._grid, self._roster, self._name = grid, roster, run
        self._rules = parties.view.config.deployment
        self._scorer = Scorer(parties.observer, parties.view.build_model())
        self._at_nodes = StatesAtNodes(self)
        self._stored: dict[int, int] = {}  # cid -> round, of the last answers
        self._fixed: tuple[object, str] = (None, "")  # a record and its digest
        self._news: list[str] = []

    def __enter__(self) -> Self:
        """Leave Flower's identity of this task as Flower has set it."""
        return self

    def states(self) -> StatesAtNodes:  # type: ignore[override]  # read alike
        """Return the personal states in force, which lie at the nodes."""
        return self._at_nodes

    def commit(self, cids: Iterable[int]) -> None:
        """Put the states in force that these clients stored with their last answers."""
        self._at_nodes.rounds |= {c: self._stored[c] for c in cids if c in self._stored}
        self._stored = {}

    def news(self) -> list[str]:
        """Return the lines about nodes since the last call."""
        lines, self._news = self._news, []
        return lines

    def train(self, tasks: Sequence[Message], *, reduce: bool) -> list[Message]:
        """Return the replies that came to a round's tasks, with ``reduce`` their sum as one reply.

        Raises:
            RunError: If fewer nodes than ``deployment.min_replies`` answer.
        """
        if not tasks:
            return []
        round_, replies = int(tasks[0].metadata.group_id), self._ask(tasks)
        good = [reply for reply in replies if reply is not None]
        needed = min(self._rules.min_replies, len(tasks))
        if len(good) < needed:
            raise RunError(
                f"round {round_}: {len(good)} of {len(tasks)} clients answered, and "
                f"deployment.min_replies is {self._rules.min_replies}; the last checkpoint is whole"
            )
        lists = [metric_lists(reply) for reply in good]
        self._stored = {int(own["cid"][0]): round_ for own in lists if own["stored"][0]}
        if not reduce or not good:
            return good
        size = chunk_size(len(good))
        pieces = [good[start : start + size] for start in range(0, len(good), size)]
        return [sum_replies(p[0] if len(p) == 1 else sum_replies(p) for p in pieces)]

    def run_jobs(self, jobs: Sequence[Job]) -> Iterable[JobResult]:
        """Yield the replies to every job that came; the states stay at the nodes."""
        for job in jobs:
            replies = [reply for reply in self._ask(job.messages) if reply is not None]
            yield JobResult([sum_replies(replies)] if job.reduce and replies else replies, [])

    def run_scores(self, requests: Sequence[ScoreRequest]) -> Iterable[Scores]:
        """Score the generic model here; each node scores its own personal model."""
        for request in requests:
            generic = self._scorer.score(replace(request, clients=())) if request.generic else None
            answer = generic or Scores(None)
            asked = request.clients and request.start == 0  # a node scores the whole test set
            yield self._ask_clients(answer, request) if asked else answer

    def fetch(self, cid: int, round_: int) -> Tensors:
        """Return the personal part of a client's model, if the file lets the server ask for it.

        Raises:
            RunError: If it does not, or the node does not answer.
        """
        if not self._rules.average_personal:
            raise RunError("personal parts stay at the nodes: deployment.average_personal is false")
        config = ConfigRecord({"run": self._name, "state-round": round_})
        message = self._to(cid, "query.personal", {"config": config}, "")
        (reply,) = self._usable([message], [cid])
        if reply is None:
            raise RunError(f"client {cid}: its node does not send its personal part")
        return tensors_of(cast(ArrayRecord, reply.content["arrays"]))

    def _to(self, cid: int, kind: str, content: Records, group: str) -> Message:
        return Message(record_dict(content), self._roster.node_of(cid), kind, group_id=group)

    def _ask(self, messages: Sequence[Message]) -> list[Message | None]:
        """Send messages to clients' nodes and return the replies; None where none is usable.

        A node whose fixed part of the model differs gets the server's, and is asked once more.
        """
        self._news += self._roster.refresh()
        cids = [message.metadata.dst_node_id for message in messages]
        replies = self._usable([self._wrapped(message) for message in messages], cids)
        again = [place for place, reply in enumerate(replies) if _lacks(reply)]
        sent = [self._wrapped(messages[place], send_fixed=True) for place in again]
        answers = self._usable(sent, [cids[place] for place in again]) if again else []
        for place, reply in zip(again, answers, strict=True):
            replies[place] = reply
        return replies

    def _wrapped(self, message: Message, *, send_fixed: bool = False) -> Message:
        """Return a message of fedlt's engines as a node understands it: one record of arrays."""
        cid, content = message.metadata.dst_node_id, message.content
        config = ConfigRecord({**content.config_records["config"]})
        config["run"] = self._name
        config["state-round"] = self._at_nodes.rounds.get(cid, 0)
        arrays = dict(content.array_records["arrays"])
        fixed = content.array_records["fixed"]
        if len(fixed):
            if self._fixed[0] is not fixed:
                self._fixed = (fixed, tensors_digest(tensors_of(fixed)))
            config["fixed-digest"] = self._fixed[1]
        if send_fixed:
            arrays |= {f"{FIXED}{name}": array for name, array in fixed.items()}
        if "private-mean" in content:
            mean = content.array_records["private-mean"]
            arrays |= {f"{MEAN}{name}": array for name, array in mean.items()}
        record = content.array_records["arrays"]
        if len(arrays) > len(record):
            record = ArrayRecord()
            record.update(arrays)
        meta = message.metadata
        return self._to(cid, meta.message_type, {"arrays": record, "config": config}, meta.group_id)

    def _usable(self, messages: Sequence[Message], cids: Sequence[int]) -> list[Message | None]:
        """Send messages and return their replies; None, and a line, where a node has failed.

        Raises:
            RunError: If ``deployment.on_error`` is ``stop`` and a node has failed.
        """
        replies = exchange(self._grid, messages, timeout=self._rules.timeout)
        for place, (cid, message, reply) in enumerate(zip(cids, messages, replies, strict=True)):
            reason = reason_of(reply) or _misfit(reply, cid)
            if not reason:
                continue
            line = f"client {cid}: node {message.metadata.dst_node_id}: {reason}"
            if self._rules.on_error == "stop":
                raise RunError(line)
            self._news.append(line)
            replies[place] = None
        return replies

    def _ask_clients(self, answer: Scores, request: ScoreRequest) -> Scores:
        """Add the hits of the clients whose nodes answer."""
        arrays, fixed, mean = (
            array_record(dict(t)) for t in (request.broadcast, request.fixed, request.private_mean)
        )
        settings: dict[str, Any] = {"server-round": request.round}
        if request.global_counts is not None:
            settings["global-counts"] = list(request.global_counts)
        content: Records = {"arrays": arrays, "fixed": fixed}
        if len(mean):
            content["private-mean"] = mean
        messages = [
            Message(
                record_dict({**content, "config": _told(settings, client)}),
                client.cid,
                MessageType.EVALUATE,
                group_id=str(request.round),
            )
            for client in request.clients
        ]
        clients, steps = {}, {}
        for client, reply in zip(request.clients, self._ask(messages), strict=True):
            if reply is None:
                continue
            records = reply.content.metric_records
            own = None if client.personal is None else records.get("personal")
            mine = None if own is None else hits_of(own)
            base = hits_of(records["generic"]) if "generic" in records else None
            clients[client.cid] = (mine, base)
            steps[client.cid] = int(metric_lists(reply)["steps"][0])
        return Scores(answer.generic, clients, steps)


def _told(settings: Mapping[str, Any], client: ClientRequest) -> ConfigRecord:
    """Return the message config of one client: which models to score."""
    asked = {"personal": client.personal is not None, "generic": client.base}
    return ConfigRecord({**settings, **asked})


def _lacks(reply: Message | None) -> bool:
    """Return True if a node asks for the fixed part of the model."""
    return reply is not None and "needs-fixed" in metric_lists(reply)


def _misfit(reply: Message | None, cid: int) -> str:
    """Return in words what is wrong with a reply for client ``cid``; "" if nothing is."""
    if reply is None or "metrics" not in reply.content:
        return "an answer without metrics"
    found = metric_lists(reply).get("cid")
    return "" if found == [cid] else f"an answer for client {found}"
