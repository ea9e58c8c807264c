"""Checks of the server's step: weights sum to one, and the order of updates has no effect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from fedlt.check.findings import Note, Violation
from fedlt.check.source_lines import place
from fedlt.check.tiny_federation import Bench, Subject
from fedlt.flower.stock import StockStrategy
from fedlt.strategy import ServerState, Tensors, Total, Update

COHORT = (0, 1, 2, 3)


def updates_of(bench: Bench, cids: Sequence[int]) -> dict[int, Update]:
    """Return clients' updates as ``aggregate`` gets them: by value, without buffers."""
    buffers = set(bench.worker.model.buffer_names("shared"))
    found = {}
    for cid in cids:
        update = bench.task(cid)
        found[cid] = Update(
            sums={n: t.detach().clone() for n, t in update.sums.items() if n not in buffers},
            weight=update.weight,
            metrics=dict(update.metrics),
            personal={n: t.detach().clone() for n, t in update.personal.items()},
            plain={n: t.detach().clone() for n, t in update.plain.items()},
        )
    return found


def total_of(bench: Bench, updates: Mapping[int, Update]) -> Total:
    """Return the total of updates in the given order, as the engines and the server do."""
    cids, given = tuple(updates), tuple(updates.values())
    weight, clients = sum(update.weight for update in given), bench.server.view.num_clients
    if not bench.server.reduces:
        return Total({}, weight, cids, clients, updates=given)
    sums, plain = dict[str, Tensor](), dict[str, Tensor]()
    for update in given:
        for total, tensors, factor in (
            (sums, update.sums, update.weight),
            (plain, update.plain, 1.0),
        ):
            for name, tensor in tensors.items():
                part = tensor * factor
                total[name] = total[name] + part if name in total else part
    return Total(sums, weight, cids, clients, plain)


def _aggregate(subject: Subject, bench: Bench, updates: Mapping[int, Update]) -> ServerState:
    state = bench.server.state
    return subject.parties.view.strategy.aggregate(state, total_of(bench, updates))


def _apart(one: Tensor, other: Tensor, tolerance: float = 1e-5) -> bool:
    """Return True if two tensors differ by more than a tolerance, relative to the largest entry."""
    if one.shape != other.shape:
        return True
    if not one.numel():
        return False
    scale = float(torch.stack([one.abs().max(), other.abs().max()]).max())
    return not bool((one.double() - other.double()).abs().max() <= tolerance * max(scale, 1e-3))


def weighs_to_one(subject: Subject) -> str:
    """Check that equal updates from all clients aggregate to that update, as a mean does.

    A strategy's own server rule must give one result for any split of weights of equal updates.
    """
    if isinstance(subject.parties.view.strategy, StockStrategy):
        return Note("the server's step is Flower's own")
    bench = subject.bench()
    updates = updates_of(bench, COHORT)
    one = updates[1]
    trained = [n for n in bench.worker.model.parameter_names("shared") if n in one.sums]
    if not trained:
        return Note("no shared parameter is averaged")
    alike = {cid: replace(one, weight=update.weight) for cid, update in updates.items()}
    found = _aggregate(subject, bench, alike).broadcast
    ruled = [name for name in trained if _apart(found[name], one.sums[name])]
    if not ruled:
        return "equal answers are a fixed point: the weights sum to one"
    _check_multiple(subject, {n: one.sums[n] for n in ruled}, found)
    mean = sum(update.weight for update in updates.values()) / len(updates)
    even = {cid: replace(one, weight=mean) for cid in updates}
    other = _aggregate(subject, bench, even).broadcast
    for name in ruled:
        if _apart(found[name], other[name]):
            raise Violation(
                f"equal answers with other weights of the same sum give another {name}",
                change="weigh answers by weight / total.weight, as total.mean() does",
                where=place(subject, "aggregate"),
            )
    return f"a rule of its own for {len(ruled)} of {len(trained)} parameters; weights cancel in it"


def _check_multiple(subject: Subject, given: Tensors, found: Mapping[str, Tensor]) -> None:
    """Raise if equal updates give a multiple of the update, as a sum without division does."""
    flat = torch.cat([tensor.double().flatten() for tensor in given.values()])
    result = torch.cat([found[name].double().flatten() for name in given])
    square = float(flat.square().sum())
    if len(flat) < 2 or not square:
        return
    factor = float((result * flat).sum()) / square
    if factor and not _apart(result, factor * flat):
        raise Violation(
            f"the weights sum to {factor:.4g}, not to 1: {len(COHORT)} equal answers give "
            f"{factor:.4g} times the answer",
            change="divide sums by total.weight, as total.mean() does",
            where=place(subject, "aggregate"),
        )


def ignores_order(subject: Subject) -> str:
    """Check that aggregation gives the same state, up to rounding, in any order of updates."""
    if isinstance(subject.parties.view.strategy, StockStrategy):
        return Note("the server's step is Flower's own")
    bench = subject.bench()
    updates = updates_of(bench, COHORT)
    first = _tensors(_aggregate(subject, bench, updates))
    cids = list(updates)
    for order in (cids, cids[::-1], [*cids[2:], *cids[:2]]):
        other = _tensors(_aggregate(subject, bench, {cid: updates[cid] for cid in order}))
        for name, tensor in first.items():
            if name not in other or _apart(tensor.double(), other[name].double(), 1e-4):
                when = "when called again" if order == cids else f"if clients answer as {order}"
                raise Violation(
                    f"aggregate gives another {name} {when}",
                    change="treat answers alike: read total.sums or every one of total.updates, "
                    "none by its position",
                    where=place(subject, "aggregate"),
                )
    return "the same from answers in any order"


def _tensors(state: ServerState) -> Tensors:
    return {**state.private, **state.broadcast}
