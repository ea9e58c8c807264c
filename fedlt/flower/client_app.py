"""The client half as a Flower ``ClientApp``: message in, one client task, message out.

This app runs on fedlt's engines, where a message carries the client's personal state in
``Context.state["personal"]`` and the node's ``partition-id`` is the client. The app of a node of a
foreign grid is :mod:`fedlt.flower.node_app`; both do a task by :func:`train_reply`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, cast

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message
from flwr.clientapp import ClientApp

from fedlt.federation.private_step import private_step
from fedlt.federation.steps import corrupted, start_of, step_norm
from fedlt.flower.records import array_record, config_of, tensors_of
from fedlt.flower.replies import pack_reply
from fedlt.strategy import Tensors, Update
from fedlt.worker.private_training import train_on_samples

if TYPE_CHECKING:
    from fedlt.client import Client
    from fedlt.worker.worker import Worker

Keep = Callable[[Tensors], None]  # stores a client's new personal state
Mod = Callable[..., Message]
TOLD = "told."  # before the names of numbers that a stock strategy of Flower's tells its clients
OURS = frozenset({  # settings of fedlt's in a message; a stock strategy's have other names
    "server-round", "global-counts", "max-norm", "work", "corrupt", "factor", "stale", "draws",
    "run", "state-round", "fixed-digest", "privacy", "privacy-norm", "privacy-noise",
})  # fmt: skip


def train_reply(
    worker: Worker,
    message: Message,
    *,
    cid: int,
    broadcast: Tensors,
    fixed: Tensors,
    personal: Tensors,
    keep: Keep,
    noise_seed: int | None = None,
) -> Message:
    """Do the task that a message asks for, and return the reply.

    Args:
        worker: The worker of this process.
        message: With the record ``config``: the settings of the round and of the client.
        cid: The client.
        broadcast: The shared part of the model, and extras.
        fixed: The fixed part of the model.
        personal: The client's personal state; {} before its first round.
        keep: Stores the client's new personal state; the tensors are live.
        noise_seed: Keys the noise of local privacy; None: the run's seed does.
    """
    config = config_of(message)
    work = cast("list[int] | None", config.get("work"))
    client = worker.client(
        cid,
        int(cast(int, config["server-round"])),
        broadcast,
        fixed=fixed,
        personal=personal,
        global_counts=cast("list[int] | None", config.get("global-counts")),
    )
    client.work = None if work is None else (work[0], work[1])
    client.draws = int(cast(int, config["draws"])) if "draws" in config else None
    for name, value in told(config).items():
        client.tensors[f"{TOLD}{name}"] = torch.tensor(value, device=worker.device)
    if config.get("privacy") == "sample":
        rules = worker.shares.config.privacy
        client.trainer = partial(
            train_on_samples,
            norm=cast("float | None", config.get("privacy-norm")),
            noise=float(cast(float, config["privacy-noise"])),
            sampling="poisson" if rules is None else rules.sampling,
        )
    return make_reply(worker.train(client), client, message, keep, noise_seed=noise_seed)


def make_reply(
    update: Update,
    client: Client,
    message: Message,
    keep: Keep,
    *,
    noise_seed: int | None = None,
) -> Message:
    """Return the reply to a training message, and store the client's personal state.

    Faults that the message names for this client happen here: a corrupt update, a stale state.
    The state of a client whose update is left out does not change.
    """
    config = config_of(message)
    names = client.model.parameter_names("shared")
    start = start_of(update, client.broadcast, names)
    if "corrupt" in config:
        kind, factor = str(config["corrupt"]), float(cast(float, config["factor"]))
        wrong = corrupted(update.sums, start, names, kind=kind, factor=factor)
        update = replace(update, sums=wrong)
    norm, max_norm = None, inf
    if "privacy" in config:
        update, norm = private_step(
            update,
            client,
            names,
            mechanism=str(config["privacy"]),
            norm=cast("float | None", config.get("privacy-norm")),
            noise=float(cast(float, config["privacy-noise"])),
            seed=client.seed if noise_seed is None else noise_seed,
        )
    elif "max-norm" in config:
        norm = step_norm(update.sums, start, names)
        max_norm = float(cast(float, config["max-norm"]))
    reply = pack_reply(update, client.cid, reply_to=message, norm=norm, max_norm=max_norm)
    if update.personal and "stale" not in config and "arrays" in reply.content:
        keep(update.personal)
    return reply


def make_client_app(get_worker: Callable[[], Worker], mods: Sequence[Mod] = ()) -> ClientApp:
    """Return the client app of fedlt's engines.

    Args:
        get_worker: Returns the worker of this process, made once.
        mods: Flower's mods around a training task, the outermost first.
    """
    app = ClientApp()
    fixed: list[ArrayRecord] = []  # of the message at work: mods expect one record of arrays

    def hide_fixed(message: Message, context: Context, call_next: Mod) -> Message:
        record = message.content.array_records["fixed"]
        del message.content["fixed"]
        fixed[:] = [record]
        try:
            return call_next(message, context)
        finally:
            message.content["fixed"] = record

    @app.train(mods=[hide_fixed, *mods] if mods else [])
    def train(message: Message, context: Context) -> Message:
        record = context.state.get("personal")

        def keep(tensors: Tensors) -> None:
            own = {n: t.detach().to("cpu", copy=True) for n, t in tensors.items()}
            context.state["personal"] = array_record(own)

        records: Mapping[str, Any] = message.content
        return train_reply(
            get_worker(),
            message,
            cid=int(cast(int, context.node_config["partition-id"])),
            broadcast=tensors_of(records["arrays"]),
            fixed=tensors_of(fixed[0] if mods else records["fixed"]),
            personal=tensors_of(record) if isinstance(record, ArrayRecord) else {},
            keep=keep,
        )

    return app


def told(config: ConfigRecord) -> dict[str, float]:
    """Return the numbers in a message that a stock strategy of Flower's tells its clients."""
    numbers = {n: v for n, v in config.items() if isinstance(v, int | float) and n not in OURS}
    return {name: float(value) for name, value in numbers.items()}
