"""Clients' replies: how an update is packed into a Flower message, and how messages are summed.

A client's reply holds ``arrays`` (the update's tensors by name) and ``metrics`` (lists, one entry a
client). A sum of replies holds ``sums`` (the arrays times their weights, added) and the joined
lists; it can be summed again, so a worker sums a chunk of the cohort with the same function with
which the server sums the chunks. An update that is not finite, or larger than the server accepts,
travels without arrays and is named.

The tensors of a client's reply are live: they lie in the scratch model until the app's next task.
A reply that is kept longer is copied with :func:`keep_reply`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import inf, isfinite
from typing import cast

import numpy as np
import torch
from flwr.app import ArrayRecord, Message, MetricRecord
from torch import Tensor

from fedlt.evaluation.scores import ClientHits
from fedlt.flower.records import (
    Records,
    array_record,
    block_of,
    metric_record,
    record_dict,
    tensors_of,
    with_content,
)
from fedlt.machine.memory import Block, Pieces
from fedlt.strategy import Tensors, Update

_IN_CACHE = 2**18  # entries
PLAIN = "plain/"  # before the names of tensors that are summed without the weight


def finite(tensors: Iterable[Tensor]) -> bool:
    """Return True if every entry of every floating tensor is finite. One pass over the memory."""
    floating = [t.detach() for t in tensors if t.is_floating_point() and t.numel()]
    if not floating or (len(floating) == 1 and isfinite(floating[0].sum().item())):
        return True
    sums = [tensor.sum() for tensor in floating]  # an entry that is not finite makes its sum so
    if len({total.dtype for total in sums}) > 1:
        sums = [total.double() for total in sums]
    if isfinite(torch.stack(sums).sum().item()):
        return True
    return all(bool(t.isfinite().all()) for t in floating)  # finite entries may overflow together


def pack_reply(
    update: Update,
    cid: int,
    *,
    reply_to: Message,
    norm: float | None = None,
    max_norm: float = inf,
) -> Message:
    """Pack an update into a reply; nothing is copied.

    Args:
        update: The client's answer; its tensors may be live.
        cid: The client.
        reply_to: The message answered.
        norm: The norm of the update's step, where the server asks for it.
        max_norm: An update with a larger norm travels without arrays.
    """
    arrays = {**update.sums, **{f"{PLAIN}{name}": t for name, t in update.plain.items()}}
    record = array_record(arrays)
    good = finite(Pieces(arrays, block_of(record)).pieces) and finite(update.personal.values())
    weight = float(update.weight)
    metrics: dict[str, float | list[float]] = {
        "cid": [cid],
        "finite": [int(good)],
        "weight": [weight],
        "num-examples": weight,  # what a stock Flower strategy weighs with
        "bytes": [float(sum(tensor.nbytes for tensor in arrays.values()))],
        **{name: [float(value)] for name, value in update.metrics.items()},
    }
    if norm is not None:
        metrics["norm"] = [norm]
    content: Records = {"metrics": metric_record(metrics)}
    if good and (norm is None or norm <= max_norm):
        content["arrays"] = record
    return Message(record_dict(content), reply_to=reply_to)


def keep_reply(reply: Message) -> Message:
    """Return a client's reply with tensors of its own."""
    content = dict(reply.content)
    arrays = content.get("arrays")
    if isinstance(arrays, ArrayRecord):
        own = Pieces(tensors_of(arrays), block_of(arrays))
        own.pieces = [piece.to("cpu", copy=True) for piece in own.pieces]
        content["arrays"] = array_record(own.tensors())
    return with_content(reply, record_dict(content))


def unpack_update(reply: Message) -> Update:
    """Return the update in a client's reply."""
    lists = metric_lists(reply)
    scalars = {name: float(values[0]) for name, values in lists.items()}
    sums, plain = _unpack(cast(ArrayRecord, reply.content["arrays"]))
    return Update(sums, scalars["weight"], metrics=scalars, personal={}, plain=plain)


def unpack_sums(reply: Message) -> tuple[Tensors, Tensors]:
    """Return the weighted sums in a sum of replies, and the sums without a weight."""
    return _unpack(cast(ArrayRecord, reply.content["sums"]))


def _unpack(record: ArrayRecord) -> tuple[Tensors, Tensors]:
    sums, plain = _split(tensors_of(record))
    return sums, {name.removeprefix(PLAIN): tensor for name, tensor in plain.items()}


def _split(tensors: Tensors) -> tuple[Tensors, Tensors]:
    """Split the tensors of a reply: summed with the weight, and summed without."""
    plain = {name: tensor for name, tensor in tensors.items() if name.startswith(PLAIN)}
    return {n: t for n, t in tensors.items() if n not in plain} if plain else tensors, plain


def metric_lists(reply: Message) -> dict[str, list[float]]:
    """Return a reply's metrics, one list entry a client."""
    record = cast(MetricRecord, reply.content["metrics"])
    return {k: cast(list[float], v) for k, v in record.items() if isinstance(v, list)}


def sum_replies(replies: Iterable[Message]) -> Message:
    """Return the sum of replies, or of sums of replies, added in order; one sum is in memory.

    Raises:
        ValueError: If there is no reply.
    """
    first: Message | None = None
    lists: dict[str, list[float]] = {}
    total: _Sum | None = None
    for reply in replies:
        first = first or reply
        own = metric_lists(reply)
        for name, values in own.items():
            lists.setdefault(name, []).extend(values)
        content = reply.content
        record = content.get("sums", content.get("arrays"))
        if not isinstance(record, ArrayRecord):
            continue
        weight = 1.0 if "sums" in content else own["weight"][0]
        if total is None:
            total = _Sum(record, weight)
        else:
            total.add(record, weight, cid=int(own["cid"][0]))
    if first is None:
        raise ValueError("no replies to sum")
    summed: Records = {"metrics": metric_record(lists)}
    if total is not None:
        summed["sums"] = array_record(total.tensors())
    return with_content(first, record_dict(summed))


def _parts_of(record: ArrayRecord) -> list[tuple[Tensors, Block | None]]:
    """Return the tensors that are summed with the weight and without, and blocks where known."""
    tensors = tensors_of(record)
    sums, plain = _split(tensors)
    return [(sums, block_of(record) if sums is tensors else None), (plain, None)]


class _Sum:
    """A growing sum of replies' tensors, with the weight and without."""

    def __init__(self, record: ArrayRecord, weight: float) -> None:
        self._parts = [Pieces(part, found) for part, found in _parts_of(record)]
        for part, factor in zip(self._parts, (weight, 1.0), strict=True):
            part.pieces = [(piece * factor).contiguous() for piece in part.pieces]

    def add(self, record: ArrayRecord, weight: float, *, cid: int) -> None:
        """Add the arrays of a client's reply, or of a sum whose first client is ``cid``."""
        factors = (weight, 1.0)
        for part, (given, found), factor in zip(
            self._parts, _parts_of(record), factors, strict=True
        ):
            pieces = part.cut(given, found)
            if pieces is None:
                raise ValueError(_difference(cid, given, part.shapes))
            for held, piece in zip(part.pieces, pieces, strict=True):
                _add_scaled(held, piece, factor)

    def tensors(self) -> Tensors:
        """Return the sum by name, on the CPU."""
        for part in self._parts:
            part.pieces = [piece.cpu() for piece in part.pieces]
        return {name: t for part in self._parts for name, t in part.tensors().items()}


def _add_scaled(total: Tensor, piece: Tensor, factor: float) -> None:
    """Add ``piece * factor`` in place, rounded twice as if both were done one after the other.

    A fused multiply-add would round once, and not everywhere. Parts that fit a core's cache make
    the product cost no memory traffic.
    """
    if factor == 1.0:
        total.add_(piece)
        return
    if total.numel() <= _IN_CACHE:
        total.add_(piece * factor)
        return
    flat = total.view(-1), piece.reshape(-1)
    for held, part in zip(*(torch.split(one, _IN_CACHE) for one in flat), strict=True):
        held.add_(part * factor)


def _difference(cid: int, given: Tensors, wanted: Mapping[str, torch.Size]) -> str:
    """Name the first difference between a reply and the replies before it."""
    for name in {**wanted, **given}:
        before = tuple(wanted[name]) if name in wanted else None
        now = tuple(given[name].shape) if name in given else None
        if now != before:
            break
    return f"client {cid}: its update has {name!r} of shape {now}, the clients before it {before}"


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
