"""The client half as a Flower ``ClientApp``: message in, one client task, message out.

Personal state lives in ``Context.state["personal"]``; which client this is says the node's
``partition-id``. The same app runs on fedlt's engines, under Flower's own simulation, and deployed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, cast

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fedlt.evaluation.request import ClientRequest, ScoreRequest, Scores
from fedlt.federation.steps import corrupted, start_of, step_norm
from fedlt.flower.records import array_record, tensors_of
from fedlt.flower.replies import hits_record, pack_reply
from fedlt.strategy import Tensors, Update

if TYPE_CHECKING:
    from fedlt.client import Client
    from fedlt.worker.worker import Worker


def personal_of(context: Context) -> Tensors:
    """Return the personal tensors of a context; empty before the client's first round."""
    record = context.state.get("personal")
    return tensors_of(record) if isinstance(record, ArrayRecord) else {}


def make_reply(update: Update, client: Client, message: Message, context: Context) -> Message:
    """Return the reply to a training message, and store the client's personal state.

    Faults that the message names for this client happen here: a corrupt update, a stale state.
    The state of a client whose update is left out does not change.
    """
    config = cast(ConfigRecord, message.content["config"])
    names = client.model.parameter_names("shared")
    start = start_of(update, client.broadcast, names)
    if "corrupt" in config:
        kind, factor = str(config["corrupt"]), float(cast(float, config["factor"]))
        wrong = corrupted(update.sums, start, names, kind=kind, factor=factor)
        update = replace(update, sums=wrong)
    norm, max_norm = None, inf
    if "max-norm" in config:
        norm = step_norm(update.sums, start, names)
        max_norm = float(cast(float, config["max-norm"]))
    reply = pack_reply(update, client.cid, reply_to=message, norm=norm, max_norm=max_norm)
    if update.personal and "stale" not in config and "arrays" in reply.content:
        own = {n: t.detach().to("cpu", copy=True) for n, t in update.personal.items()}
        context.state["personal"] = array_record(own)
    return reply


def _client(worker: Worker, message: Message, context: Context) -> Client:
    """Read one message, load the model, and return the client that the message is for."""
    content = message.content
    config = cast(ConfigRecord, content["config"])
    counts, work = config.get("global-counts"), cast("list[int] | None", config.get("work"))
    client = worker.client(
        int(cast(int, context.node_config["partition-id"])),
        int(cast(int, config["server-round"])),
        tensors_of(cast(ArrayRecord, content["arrays"])),
        fixed=tensors_of(cast(ArrayRecord, content["fixed"])),
        personal=personal_of(context),
        global_counts=cast("list[int] | None", counts),
    )
    client.work = None if work is None else (work[0], work[1])
    client.draws = int(cast(int, config["draws"])) if "draws" in config else None
    return client


def make_client_app(
    get_worker: Callable[[], Worker], score: Callable[[ScoreRequest], Scores] | None = None
) -> ClientApp:
    """Return the client app.

    Args:
        get_worker: Returns the worker of this process, made once.
        score: Answers the observer's requests, on a grid where nodes score. None: they do not.
    """
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        worker = get_worker()
        client = _client(worker, message, context)
        return make_reply(worker.train(client), client, message, context)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        assert score is not None
        cid = int(cast(int, context.node_config["partition-id"]))
        content = message.content
        config = content.config_records["config"]
        counts = config.get("global-counts")
        request = ScoreRequest(
            round=int(cast(int, config["server-round"])),
            broadcast=tensors_of(content.array_records["arrays"]),
            fixed=tensors_of(content.array_records["fixed"]),
            private_mean=tensors_of(content.array_records["private-mean"]),
            start=0,
            stop=int(cast(int, config["images"])),
            generic=False,
            keep_logits=False,
            global_counts=None if counts is None else tuple(cast(list[int], counts)),
            clients=(ClientRequest(cid, personal_of(context) if config["personal"] else None),),
        )
        own, generic = score(request).clients[cid]
        reply = RecordDict({"metrics": MetricRecord({"cid": [cid]})})
        for name, hits in (("generic", generic), ("personal", own)):
            if hits is not None:
                reply[name] = hits_record(hits)
        return Message(reply, reply_to=message)

    @app.query()
    def query(message: Message, context: Context) -> Message:
        cid = int(cast(int, context.node_config["partition-id"]))
        return Message(RecordDict({"metrics": MetricRecord({"cid": [cid]})}), reply_to=message)

    return app
