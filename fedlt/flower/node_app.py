"""The ``ClientApp`` of a node of a foreign grid: Flower's own simulation, or a deployment.

    query            who the node is: client, versions, what it holds
    query.personal   the personal part of its client's model, where the file lets a server ask
    train            one client task
    evaluate         hits of the client's model, and of the generic model, on the node's test images

A message has exactly one record of arrays, as Flower's mods expect, with these names:

    arrays           broadcast | "fixed/..." if the node asked for it | "private-mean/..."
    config           settings; "run", "state-round", "fixed-digest"

The fixed part of a model does not travel: a node makes it from seed and configuration, and compares
its digest. Which client a node is, its ``partition-id`` says.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable

from fedlt.errors import FedltError, RunError
from fedlt.evaluation.request import ClientRequest, ScoreRequest, Scores
from fedlt.evaluation.scores import ClientHits
from fedlt.flower.client_app import Mod, train_reply
from fedlt.flower.node_states import NodeStates
from fedlt.flower.records import array_record, tensors_digest, tensors_of
from fedlt.flower.replies import hits_record
from fedlt.strategy import Tensors

if TYPE_CHECKING:
    from fedlt.worker.worker import Worker

FIXED, MEAN = "fixed/", "private-mean/"  # beginnings of names in a record of arrays


@dataclass
class Node:
    """A client at its node: worker, scorer, and the facts by which a server knows the node."""

    cid: int
    worker: Worker
    score: Callable[[ScoreRequest], Scores]
    make_fixed: Callable[[], Tensors]  # the fixed part of the initial model
    facts: Mapping[str, str | int | list[int]]  # the answer to a query
    test_images: int  # M, which one request scores
    per_class: bool = True  # hits are answered by class; False: in total
    has_secrets: bool = False  # noise of local privacy is the node's own: no seed tells it
    state_folder: Path | None = None
    _fixed: Tensors | None = field(default=None, init=False)

    @property
    def fixed(self) -> Tensors:
        """The fixed part of the model, made when it is first asked for."""
        if self._fixed is None:
            self._fixed = self.make_fixed()
        return self._fixed

    def states(self, context: Context, config: Mapping[str, object]) -> NodeStates:
        """Return the client's personal states of the run that a message belongs to."""
        return NodeStates(context, str(config["run"]), self.cid, self.state_folder)


def make_node_app(open_node: Callable[[Context], Node], mods: Sequence[Mod] = ()) -> ClientApp:
    """Return the client app of a node.

    Args:
        open_node: Returns the node of a context, made once per process. Its errors are answered.
        mods: Flower's mods around a training task, the outermost first.
    """

    def handled(handler: Callable[[Node, Message, Context], Message]) -> ClientAppCallable:
        def handle(message: Message, context: Context) -> Message:
            try:
                return handler(open_node(context), message, context)
            except (FedltError, RunError) as error:
                content = RecordDict({"facts": ConfigRecord({"refused": str(error)})})
                return Message(content, reply_to=message)

        return handle

    app = ClientApp()
    app.query()(handled(_say_who))
    app.query("personal")(handled(_send_personal))
    app.train(mods=[*mods])(handled(_train))
    app.evaluate()(handled(_evaluate))
    return app


def _say_who(node: Node, message: Message, context: Context) -> Message:
    return _answer(message, node, facts=dict(node.facts))


def _send_personal(node: Node, message: Message, context: Context) -> Message:
    """Answer with the personal part of the client's model.

    Raises:
        RunError: If the node has lost it.
    """
    config = message.content.config_records["config"]
    wanted = int(cast(int, config["state-round"]))
    tensors, found = node.states(context, config).read(wanted)
    if found != wanted:
        raise RunError(f"has lost the personal state of round {wanted}")
    names = set(node.worker.model.names("personal"))
    reply = _answer(message, node)
    reply.content["arrays"] = array_record({n: t for n, t in tensors.items() if n in names})
    return reply


def _train(node: Node, message: Message, context: Context) -> Message:
    """Do a task, and keep the client's new personal state."""
    config = message.content.config_records["config"]
    round_, wanted = (int(cast(int, config[key])) for key in ("server-round", "state-round"))
    states = node.states(context, config)
    tensors, found = states.read(wanted)
    received = _received(node, message)
    if received is None:
        return _answer(message, node, needs_fixed=[1])
    stored: list[Tensors] = []
    reply = train_reply(
        node.worker,
        message,
        cid=node.cid,
        broadcast=received.broadcast,
        fixed=received.fixed,
        personal=tensors,
        keep=stored.append,
        noise_seed=secrets.randbits(62) if node.has_secrets else None,
    )
    if stored:
        states.keep(stored[0], round_, wanted=wanted)
    metrics = reply.content.metric_records["metrics"]
    metrics["stored"], metrics["outdated"] = [len(stored)], [int(found != wanted)]
    return reply


def _evaluate(node: Node, message: Message, context: Context) -> Message:
    """Answer with the hits of the client's model and of the generic model."""
    config = message.content.config_records["config"]
    wanted = int(cast(int, config["state-round"]))
    tensors, found = node.states(context, config).read(wanted)
    received = _received(node, message)
    if received is None:
        return _answer(message, node, needs_fixed=[1])
    known = cast("list[int] | None", config.get("global-counts"))
    round_ = int(cast(int, config["server-round"]))
    own = None
    if config["personal"]:
        is_lost = wanted > 0 and not found
        own = _first_state(node, received, round_, known) if is_lost else tensors
    request = ScoreRequest(
        round=round_,
        broadcast=received.broadcast,
        fixed=received.fixed,
        private_mean=received.private_mean,
        start=0,
        stop=node.test_images,
        generic=False,
        keep_logits=False,
        global_counts=None if known is None else tuple(known),
        clients=(ClientRequest(node.cid, own, base=bool(config["generic"])),),
    )
    scores = node.score(request)
    mine, base = scores.clients[node.cid]
    reply = _answer(message, node, steps=[scores.steps.get(node.cid, 0)])
    for name, hits in (("generic", base), ("personal", mine)):
        if hits is not None:
            reply.content[name] = hits_record(hits if node.per_class else _total(hits))
    return reply


@dataclass(frozen=True)
class _Received:
    """The arrays of a message, sorted."""

    broadcast: Tensors
    fixed: Tensors
    private_mean: Tensors


def _received(node: Node, message: Message) -> _Received | None:
    """Return the arrays of a message, with the fixed part made here unless it was sent.

    None if the fixed part made here is not the server's.
    """
    config = message.content.config_records["config"]
    parts: dict[str, Tensors] = {"": {}, FIXED: {}, MEAN: {}}
    for name, tensor in tensors_of(message.content.array_records["arrays"]).items():
        start = next((one for one in (FIXED, MEAN) if name.startswith(one)), "")
        parts[start][name.removeprefix(start)] = tensor
    fixed, digest = parts[FIXED], config.get("fixed-digest")
    if not fixed and digest is not None:
        fixed = node.fixed
        if tensors_digest(fixed) != digest:
            return None
    return _Received(parts[""], fixed, parts[MEAN])


def _first_state(
    node: Node, received: _Received, round_: int, known: Sequence[int] | None
) -> Tensors:
    """Return the first personal state of a client, whose node has lost the newest one."""
    client = node.worker.client(
        node.cid,
        round_ + 1,
        received.broadcast,
        fixed=received.fixed,
        personal={},
        global_counts=known,
        pooled=False,
    )
    return {name: tensor.clone() for name, tensor in client.personal.items()}


def _total(hits: ClientHits) -> ClientHits:
    """Return hits summed over the classes (H, 1)."""
    plain, held = (table.sum(axis=1, keepdims=True) for table in (hits.hits, hits.hits_held))
    return ClientHits(hits.heads, plain, held)


def _answer(
    message: Message,
    node: Node,
    *,
    facts: Mapping[str, str | int | list[int]] | None = None,
    **metrics: list[int],
) -> Message:
    listed = {name.replace("_", "-"): values for name, values in metrics.items()}
    content = RecordDict({"metrics": MetricRecord({"cid": [node.cid], **listed})})
    if facts is not None:
        content["facts"] = ConfigRecord(dict(facts))
    return Message(content, reply_to=message)


def check_partition_id(context: Context) -> int:
    """Return the client that a node's ``partition-id`` names.

    Raises:
        FedltError: If there is none.
    """
    found = context.node_config.get("partition-id")
    if not isinstance(found, int | np.integer) or isinstance(found, bool):
        words = "has no partition-id" if found is None else f"has partition-id {found!r}"
        raise FedltError(f"{words}: flower-supernode --node-config 'partition-id=0'")
    return int(found)
