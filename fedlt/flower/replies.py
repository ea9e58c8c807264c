"""Clients' replies: how an update is packed into a Flower message, and how messages are summed.

A reply holds ``arrays`` (the update's sums times its weight) and ``metrics`` (lists, one entry a
client). The sum of two replies is a reply, so a worker sums a chunk of the cohort with the same
function with which the server sums the chunks. An update that is not finite travels without arrays
and is named.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite
from typing import cast

import numpy as np
import torch
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from torch import Tensor

from fedlt.evaluation.scores import ClientHits
from fedlt.flower.records import array_record, tensors_of, with_content
from fedlt.strategy import Tensors, Update

__all__ = [
    "finite",
    "hits_of",
    "hits_record",
    "metric_lists",
    "pack_reply",
    "split_plain",
    "sum_replies",
    "unpack_update",
]


PLAIN = "plain/"  # before the names of tensors that are summed without the weight


def finite(tensors: Iterable[Tensor]) -> bool:
    """Say whether every entry of every floating tensor is finite. One pass over the memory."""
    floating = [t for t in tensors if t.is_floating_point() and t.numel()]
    if not floating:
        return True
    sums = [tensor.sum() for tensor in floating]  # an entry that is not finite makes its sum so
    if len({total.dtype for total in sums}) > 1:
        sums = [total.double() for total in sums]
    if isfinite(torch.stack(sums).sum().item()):
        return True
    return all(bool(t.isfinite().all()) for t in floating)  # finite entries may overflow together


def pack_reply(update: Update, cid: int, *, reduce: bool, reply_to: Message) -> Message:
    """Copy an update out of the scratch model into a reply.

    Args:
        update: The client's answer; its tensors may be live.
        cid: The client.
        reduce: Scale the sums by the weight, ready to be added up; plain copies otherwise.
        reply_to: The message answered.
    """
    names, live = list(update.sums), list(update.sums.values())
    scaled = torch._foreach_mul(live, update.weight) if reduce else [t.clone() for t in live]
    copies = list(scaled)
    names += [f"{PLAIN}{name}" for name in update.plain]
    copies += [tensor.detach().clone() for tensor in update.plain.values()]
    good = finite(copies) and finite(update.personal.values())
    lists: dict[str, list[float]] = {name: [float(v)] for name, v in update.metrics.items()}
    metrics = MetricRecord(
        {"cid": [cid], "finite": [int(good)], "weight": [float(update.weight)], **lists}
    )
    if not reduce:
        metrics["num-examples"] = float(update.weight)
    content = RecordDict({"metrics": metrics})
    if good:
        content["arrays"] = array_record(dict(zip(names, copies, strict=True)))
    return Message(content, reply_to=reply_to)


def unpack_update(reply: Message) -> Update:
    """Return the update in a reply that was packed without ``reduce``."""
    lists = metric_lists(reply)
    scalars = {name: float(values[0]) for name, values in lists.items()}
    sums, plain = split_plain(tensors_of(cast(ArrayRecord, reply.content["arrays"])))
    return Update(sums, scalars["weight"], metrics=scalars, personal={}, plain=plain)


def split_plain(tensors: Tensors) -> tuple[Tensors, Tensors]:
    """Part the tensors of a reply into weighted sums and sums without a weight."""
    plain = {n.removeprefix(PLAIN): t for n, t in tensors.items() if n.startswith(PLAIN)}
    return {n: t for n, t in tensors.items() if not n.startswith(PLAIN)}, plain


def metric_lists(reply: Message) -> dict[str, list[float]]:
    """Return a reply's metrics, one list entry a client."""
    record = cast(MetricRecord, reply.content["metrics"])
    return {k: cast(list[float], v) for k, v in record.items() if isinstance(v, list)}


def sum_replies(replies: Iterable[Message]) -> Message:
    """Return one reply: the sums added in order, the metrics joined. Takes one pass, keeps one sum.

    Raises:
        ValueError: If there is no reply.
    """
    first: Message | None = None
    count = 0
    lists: dict[str, list[float]] = {}
    total: Tensors = {}
    owned = False  # a record's tensors are never written; our own sum is
    for reply in replies:
        first, count = first or reply, count + 1
        for name, values in metric_lists(reply).items():
            lists.setdefault(name, []).extend(values)
        arrays = reply.content.get("arrays")
        if not isinstance(arrays, ArrayRecord):
            continue
        tensors = tensors_of(arrays)
        if total:
            _check_same(total, tensors, lists["cid"])
        if not total:
            total = tensors
        elif owned:
            torch._foreach_add_(list(total.values()), [tensors[name] for name in total])
        else:
            added = torch._foreach_add(list(total.values()), [tensors[name] for name in total])
            total, owned = dict(zip(total, added, strict=True)), True
    if first is None:
        raise ValueError("no replies to sum")
    if count == 1:
        return first
    content = RecordDict({"metrics": MetricRecord(dict(lists))})
    if total:
        content["arrays"] = array_record(total)
    return with_content(first, content)


def _check_same(total: Tensors, tensors: Tensors, cids: list[float]) -> None:
    """Raise unless a reply sums the same names and shapes as those before it."""
    if total.keys() == tensors.keys() and all(
        total[n].shape == t.shape for n, t in tensors.items()
    ):
        return
    for name in {**total, **tensors}:
        shapes = [tuple(t[name].shape) if name in t else None for t in (total, tensors)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"client {int(cids[-1])}: its update has {name!r} of shape {shapes[1]}, "
                f"the clients before it {shapes[0]}"
            )


def hits_record(hits: ClientHits) -> MetricRecord:
    """Return hits as a metric record: ``mask/head`` -> one count a class."""
    tables = {"none": hits.hits, "held": hits.hits_held, "test": hits.hits_test}
    return MetricRecord(
        {
            f"{mask}/{head}": [int(count) for count in table[row]]
            for mask, table in tables.items()
            if table is not None
            for row, head in enumerate(hits.heads)
        }
    )


def hits_of(record: MetricRecord) -> ClientHits:
    """Return the hits in a record made by :func:`hits_record`."""
    tables: dict[str, list[list[int]]] = {}
    for name, counts in record.items():
        tables.setdefault(name.split("/", 1)[0], []).append(cast(list[int], counts))
    heads = tuple(name.removeprefix("none/") for name in record if name.startswith("none/"))
    arrays = {mask: np.asarray(rows, dtype=np.int64) for mask, rows in tables.items()}
    return ClientHits(heads, arrays["none"], arrays["held"], arrays.get("test"))
