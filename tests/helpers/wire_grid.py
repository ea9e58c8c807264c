"""A Flower grid in one process whose messages are the bytes that go over a wire.

Node ids are random 64-bit numbers. Every message is taken apart into Flower's objects and put
together again on the other side; replies come in random order. Failures are named by round and
client: ``lost`` (no reply), ``error`` (Flower's own error reply), ``raises`` (the node fails),
``late`` (after the time is over), ``doubled`` (two replies).
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from flwr.app import Context, Error, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

SUPERLINK = 1  # the source of Flower's own error replies


@dataclass
class WireNode:
    """A node: its configuration, its context, and the app that answers there."""

    context: Context
    app: Callable[[Message, Context], Message]


@dataclass
class WireGrid(Grid):
    """Grid of nodes in this process."""

    app: Callable[[Message, Context], Message]
    num_nodes: int
    failures: Mapping[tuple[int, int], str] = field(default_factory=dict)  # (round, cid) -> kind
    seed: int = 1
    run_config: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.draw = random.Random(self.seed)
        self.nodes: dict[int, WireNode] = {}
        for cid in range(self.num_nodes):
            self.join(cid)
        self.sent: list[tuple[str, int]] = []  # type of message, bytes, of every message to a node
        self.returned: list[tuple[str, int]] = []  # likewise from a node
        self.replies: dict[str, list[Message]] = {}
        self.late: list[Message] = []

    def join(self, cid: int | None, **node_config: object) -> int:
        """Start a node for a client, and return its id."""
        node = self.draw.getrandbits(63) | 1 << 62
        config = {"num-partitions": self.num_nodes, **node_config}
        if cid is not None:
            config["partition-id"] = cid
        context = Context(1, node, config, RecordDict(), dict(self.run_config))
        self.nodes[node] = WireNode(context, self.app)
        return node

    def leave(self, cid: int) -> None:
        """Kill the node of a client: its context is gone, too."""
        gone = self.context_of(cid)
        self.nodes = {n: one for n, one in self.nodes.items() if one.context is not gone}

    def context_of(self, cid: int) -> Context:
        """Return the context of a client's node."""
        contexts = [one.context for one in self.nodes.values()]
        return next(c for c in contexts if c.node_config["partition-id"] == cid)

    # ---- Flower's interface

    def set_run(self, run: Run) -> None:
        pass

    @property
    def run(self) -> Run:
        return Run.create_empty(run_id=1)

    def create_message(self, *args: object, **kwargs: object) -> Message:
        raise NotImplementedError

    def get_node_ids(self) -> Iterable[int]:
        return list(self.nodes)

    def get_nodes(self) -> Iterable[object]:
        raise NotImplementedError

    def send_and_receive(self, messages, *, timeout=None):
        raise NotImplementedError

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = str(
                uuid.UUID(int=self.draw.getrandbits(128))
            )
            ids.append(message.metadata.message_id)
            if message.metadata.dst_node_id not in self.nodes:
                self.replies[ids[-1]] = [self._error(message, "the node is unavailable")]
            else:
                self._deliver(message)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        found = [reply for i in list(message_ids) for reply in self.replies.pop(i, [])]
        self.draw.shuffle(found)
        return found

    # ---- a wire

    def _deliver(self, message: Message) -> None:
        node = self.nodes[message.metadata.dst_node_id]
        kind = message.metadata.message_type
        received = over_wire(message, self.sent, kind)
        TaskIdentity.node_id = message.metadata.dst_node_id
        cid = node.context.node_config.get("partition-id")
        round_ = int(message.metadata.group_id or 0)
        failure = self.failures.get((round_, cid), "") if kind == "train" else ""
        sent = message.metadata.message_id
        if failure == "lost":
            return
        if failure == "error":
            self.replies[sent] = [self._error(message, "the node has lost its connection")]
            return
        try:
            if failure == "raises":
                raise ValueError("the disk is full")
            reply = over_wire(node.app(received, node.context), self.returned, kind)
        except Exception as error:
            text = f"{type(error)}:<'{error}'>"
            reply = Message(Error(code=2, reason=text), reply_to=received)
        if failure == "late":
            self.late.append(reply)
            return
        self.replies[sent] = [reply, reply] if failure == "doubled" else [reply]

    def _error(self, message: Message, reason: str) -> Message:
        reply = Message(Error(code=3, reason=reason), reply_to=message)
        reply.metadata.__dict__["_src_node_id"] = SUPERLINK
        return reply


def over_wire(message: Message, log: list[tuple[str, int]], kind: str) -> Message:
    """Return a message that is made of the bytes of another one; note their number."""
    objects = {name: item.deflate() for name, item in get_all_nested_objects(message).items()}
    log.append((kind, sum(map(len, objects.values()))))
    made = inflate_object_from_contents(message.object_id, dict(objects))
    made.metadata.__dict__["_message_id"] = message.metadata.message_id
    return made
