"""Checks of one client's task: the update, the values read, the tensors written."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from fedlt.check.findings import Violation
from fedlt.check.server import COHORT, total_of, updates_of
from fedlt.check.source_lines import place
from fedlt.check.tiny_federation import Bench, Frozen, Subject, frozen, raw
from fedlt.client import Client
from fedlt.flower.stock import StockStrategy
from fedlt.models import GROUPS, Model
from fedlt.strategy import Strategy, Tensors, Update, prefixed

TASK = ("objective", "local_update", "loss", "batches", "setup")


def covers_groups(subject: Subject) -> str:
    """Check that every parameter and buffer is in exactly one group, before and after a task."""
    bench = subject.bench()
    model = bench.worker.model
    names = [name for group in GROUPS for name in model.names(group)]
    entries = model.state_dict(keep_vars=True)
    once = {id(tensor): name for name, tensor in reversed(entries.items())}  # tied tensors
    if sorted(names) != sorted(once.values()):
        odd = sorted(set(names) ^ set(once.values()))
        raise Violation(
            f"{', '.join(odd)}: in no group, or in several",
            change="add parts with model.add_head and declare groups with set_group, in build",
            where=place(subject, "build"),
        )
    for name in model.parameter_names("fixed"):
        if dict(model.named_parameters())[name].requires_grad:
            raise Violation(
                f"{name} is fixed and requires a gradient",
                change="leave requires_grad of fixed parameters alone: set_group sets it",
                where=place(subject, "build", *TASK),
            )
    before = {name: id(tensor) for name, tensor in entries.items()}
    loose = {name: tensor.detach().clone() for name, tensor in _loose(model).items()}
    bench.task(1)
    _check_still_there(subject, model, before)
    _check_loose(subject, model, loose)
    counts = ", ".join(f"{len(model.names(group))} {group}" for group in GROUPS)
    return f"every parameter and buffer in one group: {counts}"


def _check_still_there(subject: Subject, model: Model, before: Mapping[str, int]) -> None:
    after = {name: id(tensor) for name, tensor in model.state_dict(keep_vars=True).items()}
    for name in {**before, **after}:
        if before.get(name) != after.get(name):
            what = "replaces" if name in before and name in after else "adds or removes"
            raise Violation(
                f"a task {what} {name}",
                change="add parts in build; in a task write into tensors, as model.load does",
                where=place(subject, "local_update", *TASK),
            )


def _loose(model: nn.Module) -> Tensors:
    """Return the tensors of a model's modules that belong to no group."""
    found = {}
    for path, module in model.named_modules():
        attributes = {n: t for n, t in vars(module).items() if isinstance(t, Tensor)}
        transient = {n: module._buffers.get(n) for n in module._non_persistent_buffers_set}
        own = {**attributes, **{n: t for n, t in transient.items() if t is not None}}
        found.update(prefixed(f"{path}." if path else "", own))
    return found


def _check_loose(subject: Subject, model: Model, before: Tensors) -> None:
    for name, tensor in _loose(model).items():
        is_constant = name in before and torch.equal(before[name], tensor)
        if tensor.requires_grad or not is_constant:
            raise Violation(
                f"{name} is trained or changed, and in no group",
                change="make it an nn.Parameter or a persistent buffer: such tensors have a group",
                where=place(subject, "build", *TASK),
            )


def answers(subject: Subject) -> str:
    """Check that updates hold the shared float and personal tensors, alike for every client."""
    bench = subject.bench()
    update, model = bench.task(1), bench.worker.model
    state, known = model.state(), set(model.names())
    shared = set(model.names("shared")) - set(model.integer_names())
    personal = set(model.names("personal"))
    for title, given, wanted in (
        ("sums", update.sums, shared),
        ("personal", update.personal, personal),
    ):
        odd = sorted(wanted ^ (set(given) & known))
        if odd:
            verb = "lacks" if odd[0] in wanted else "has, though it is of another group,"
            raise Violation(
                f"Update.{title} {verb} {odd[0]}",
                change="answer with client.update(...): it takes every tensor of the group",
                where=place(subject, "local_update"),
            )
        for name in wanted:
            if given[name].shape != state[name].shape:
                raise Violation(
                    f"Update.{title}[{name!r}] has shape {tuple(given[name].shape)}, "
                    f"the model's has {tuple(state[name].shape)}",
                    change="answer with a tensor of the model's own shape",
                    where=place(subject, "local_update"),
                )
    if not (math.isfinite(update.weight) and update.weight > 0):
        raise Violation(
            f"Update.weight is {update.weight}",
            change="give a weight above 0; client.update uses the number of examples",
            where=place(subject, "local_update"),
        )
    _check_alike(subject, bench, update)
    extras = sorted({*update.sums, *update.plain} - known)
    return f"{len(update.sums)} tensors" + (f", extras {', '.join(extras)}" if extras else "")


def _check_alike(subject: Subject, bench: Bench, update: Update) -> None:
    mine = {"sums": set(update.sums), "plain": set(update.plain)}
    other = bench.task(2)
    for title, names in mine.items():
        odd = sorted(names ^ set(getattr(other, title)))
        if odd:
            raise Violation(
                f"clients answer with different names: {odd[0]} is in one Update.{title} only",
                change="answer with the same names everywhere; zeros where there is nothing to say",
                where=place(subject, "local_update"),
            )


def is_pure(subject: Subject) -> str:
    """Check purity: with tasks of clients A, B, A, both updates of A are equal, on any worker."""
    stored: Tensors = {}  # personal state of client 1 after its first round
    for round_ in (1, 2):
        bench = subject.bench()
        update = bench.task(1, round_=round_, personal=stored)
        first, kept = frozen(update), {n: t.detach().clone() for n, t in update.personal.items()}
        bench.task(2, round_=round_)
        again = frozen(bench.task(1, round_=round_, personal=stored))
        elsewhere = frozen(subject.bench().task(1, round_=round_, personal=stored))
        stored = kept
        for other, when in ((again, "after client 2"), (elsewhere, "on another worker")):
            if other != first:
                raise Violation(
                    f"client 1 answers otherwise {when}: {_difference(first, other)} differs",
                    change="keep nothing between calls: a client's memory is its personal tensors, "
                    "the server's is ServerState; draw from torch_generator(client.seed, "
                    "'purpose', client.round, client.cid)",
                    where=place(subject, "local_update", *TASK),
                )
    return "clients A, B, A: A answers alike, on any worker"


def _difference(one: Frozen, other: Frozen) -> str:
    if one[0] != other[0]:
        names = sorted({*one[0], *other[0]})
        return next(name for name in names if one[0].get(name) != other[0].get(name))
    return "its weight" if one[1] != other[1] else "its metrics"


def writes_nothing(subject: Subject) -> str:
    """Check that a task changes neither the broadcast, nor its personal state, nor the data."""
    bench = subject.bench()
    state = bench.server.state
    personal = {name: t.clone() for name, t in bench.client(1).personal.items()}
    given = {
        **prefixed("client.broadcast: ", state.broadcast),
        **prefixed("the fixed part: ", state.fixed),
        **prefixed("client.personal: ", personal),
    }
    before = raw(given)
    client = bench.client(1, personal=personal)
    data, own = client.data, client.tensors
    images = data.images[:]
    common = {"images": images, "labels": data.labels, "indices": data.indices}
    counts = {n: tensor for n, tensor in own.items() if n in ("class_counts", "log_prior")}
    read = {**prefixed("client.data: ", common), **prefixed("client.tensors: ", counts)}
    before |= raw(read)
    bench.worker.train(client)
    after = raw({**given, **read})
    for name, value in before.items():
        if after[name] != value:
            raise Violation(
                f"a task writes into {name}, which is not its own",
                change="write nothing that was given: clone it first, or use operations without _",
                where=place(subject, "local_update", *TASK),
            )
    _check_aggregate(subject)
    return "broadcast, personal state, data and the server's state are as before"


def _check_aggregate(subject: Subject) -> None:
    strategy, bench = subject.parties.view.strategy, subject.bench()
    if subject.section == "client" or isinstance(strategy, StockStrategy):
        return
    state, total = bench.server.state, total_of(bench, updates_of(bench, COHORT))
    given = {
        **prefixed("state.broadcast: ", state.broadcast),
        **prefixed("state.private: ", state.private),
        **prefixed("total.sums: ", total.sums),
        **prefixed("total.plain: ", total.plain),
    }
    for number, update in enumerate(total.updates):
        given.update(prefixed(f"total.updates[{number}]: ", update.sums))
    before = raw(given)
    strategy.aggregate(state, total)
    after = raw(given)
    for name, value in before.items():
        if after[name] != value:
            raise Violation(
                f"aggregate writes into {name}",
                change="return new tensors: replace(state, broadcast={**state.broadcast, ...})",
                where=place(subject, "aggregate"),
            )


def first_state(subject: Subject) -> str:
    """Check that a client's first personal state is a function of the seed and the client."""

    def first(*, round_: int = 1, others: tuple[int, ...] = (), shift: int = 0) -> object:
        bench = subject.bench()
        for cid in others:
            bench.task(cid)
        broadcast = {name: t + shift for name, t in bench.server.state.broadcast.items()}
        client: Client = bench.client(1, round_=round_, broadcast=broadcast)
        return raw(client.personal)

    trials: dict[str, Callable[[], object]] = {
        "from call to call": first,
        "with the round": lambda: first(round_=3),
        "with the tasks before it": lambda: first(others=(2, 0)),
        "with the broadcast": lambda: first(shift=1),
    }
    base = first()
    for how, trial in trials.items():
        if trial() != base:
            raise Violation(
                f"client 1's first personal state changes {how}",
                change="make it from (client.seed, client.cid) alone: seed_torch(client.seed, "
                "'purpose', client.cid) before a draw",
                where=place(subject, "init_personal"),
            )
    strategy: Strategy = subject.parties.view.strategy
    names = len(strategy.init_personal(subject.bench().client(1)))
    return "a function of (seed, cid)" if names else "there is no personal state"
