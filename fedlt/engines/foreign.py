"""Engine around any other Flower ``Grid``: Flower's own simulation, or a deployment.

Node ids there are random 64-bit numbers, so each node is asked once for its client id. Personal
states stay on the nodes: the server cannot checkpoint them, and each node scores its own personal
model. Equal bits are not promised, since the hardware of the nodes is unknown.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from fedlt.engines.engine import Engine, Job, JobResult
from fedlt.errors import RunError
from fedlt.evaluation.request import ClientRequest, ScoreRequest, Scores
from fedlt.flower.records import array_record
from fedlt.flower.replies import hits_of, metric_lists, sum_replies
from fedlt.worker.scorer import Scorer

if TYPE_CHECKING:
    from fedlt.federation import Parties

WAIT = 600.0  # seconds until all nodes must be there


def as_engine(grid: Grid, parties: Parties) -> Engine:
    """Return ``grid`` itself if ``grid`` is a fedlt engine, otherwise an engine around ``grid``."""
    return grid if isinstance(grid, Engine) else ForeignEngine(grid, parties)


class ForeignEngine(Engine):
    """Engine around a foreign grid: takes client ids, and sends to node ids."""

    def __init__(self, grid: Grid, parties: Parties) -> None:
        super().__init__(parties)
        self._grid = grid
        self._scorer = Scorer(parties.observer, parties.view.build_model())
        self._nodes = self._find_nodes()

    def _find_nodes(self) -> dict[int, int]:
        """Wait for the nodes and ask each for its client id."""
        wanted, deadline = self.parties.view.num_clients, time.monotonic() + WAIT
        while len(nodes := sorted(self._grid.get_node_ids())) < wanted:
            if time.monotonic() > deadline:
                raise RunError(f"{len(nodes)} of {wanted} nodes are there after {WAIT:.0f} s")
            time.sleep(0.2)
        asked = [Message(RecordDict(), node, MessageType.QUERY) for node in nodes]
        replies = self._deliver(asked)
        return {int(metric_lists(r)["cid"][0]): r.metadata.src_node_id for r in replies}

    def _deliver(self, messages: Sequence[Message]) -> list[Message]:
        """Send messages and return their replies in the order sent."""
        listed = list(messages)
        order = {message.metadata.dst_node_id: i for i, message in enumerate(listed)}
        replies = list(self._grid.send_and_receive(listed))
        replies.sort(key=lambda reply: order[reply.metadata.src_node_id])
        for reply in replies:
            if reply.has_error():
                raise RunError(f"node {reply.metadata.src_node_id}: {reply.error.reason}")
        if len(replies) != len(listed):
            raise RunError(f"{len(replies)} of {len(listed)} nodes answered")
        return replies

    def _to_node(self, message: Message) -> Message:
        meta = message.metadata
        node = self._nodes[meta.dst_node_id]
        return Message(message.content, node, meta.message_type, group_id=meta.group_id)

    def run_jobs(self, jobs: Sequence[Job]) -> Iterator[JobResult]:
        """Send all messages at once; sum the replies in this process."""
        messages = [self._to_node(message) for job in jobs for message in job.messages]
        replies = iter(self._deliver(messages))
        for job in jobs:
            own = [next(replies) for _ in job.messages]
            yield JobResult([sum_replies(own)] if job.reduce else own, [])

    def run_scores(self, requests: Sequence[ScoreRequest]) -> Iterable[Scores]:
        """Score the generic model here; each node scores its own personal model."""
        for request in requests:
            generic = self._scorer.score(replace(request, clients=())) if request.generic else None
            answer = generic or Scores(None)
            asked = request.clients and request.start == 0  # a node scores the whole test set
            yield self._ask_clients(answer, request) if asked else answer

    def _ask_clients(self, answer: Scores, request: ScoreRequest) -> Scores:
        """Add the clients' hits on the whole test set to an answer."""
        images = len(self.parties.observer.data.eval_labels)
        content: dict[str, ArrayRecord | ConfigRecord] = {
            "arrays": array_record(dict(request.broadcast)),
            "fixed": array_record(dict(request.fixed)),
            "private-mean": array_record(dict(request.private_mean)),
        }
        config = ConfigRecord({"server-round": request.round, "images": images})
        if request.global_counts is not None:
            config["global-counts"] = list(request.global_counts)
        asked = [
            Message(
                RecordDict({**content, "config": _told(config, client)}),
                self._nodes[client.cid],
                MessageType.EVALUATE,
            )
            for client in request.clients
        ]
        clients = {}
        for client, reply in zip(request.clients, self._deliver(asked), strict=True):
            records = reply.content.metric_records
            own = None if client.personal is None else records.get("personal")
            mine = None if own is None else hits_of(own)
            base = hits_of(records["generic"]) if client.base else None
            clients[client.cid] = (mine, base)
        return Scores(answer.generic, clients)


def _told(config: ConfigRecord, client: ClientRequest) -> ConfigRecord:
    """Return the message config of one client: whether to score its personal model."""
    return ConfigRecord({**config, "personal": client.personal is not None})
