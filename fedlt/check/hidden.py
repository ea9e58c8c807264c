"""Checks of hidden inputs of a method: global random generators, and the clock."""

from __future__ import annotations

import datetime
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import Any

import numpy as np
import torch

from fedlt.check.findings import Violation
from fedlt.check.server import COHORT, total_of, updates_of
from fedlt.check.source_lines import Places, own_verbs, place, shorten
from fedlt.check.tiny_federation import Subject, frozen, raw
from fedlt.data.augment import unit_range
from fedlt.flower.server_half import make_server_half
from fedlt.flower.stock import StockStrategy
from fedlt.rng import set_torch_state, torch_state

CLOCKS = {
    clock: f"time.{name}"
    for name in ("time", "monotonic", "perf_counter", "process_time", "thread_time")
    for suffix in ("", "_ns")
    if (clock := getattr(time, name + suffix, None)) is not None
}
THROUGH = {"datetime", "random", "secrets", "uuid", "tempfile", "numpy"}  # on the way to a clock


@dataclass(frozen=True)
class Step:
    """Call of some verbs of a method."""

    verbs: tuple[str, ...]
    call: Callable[[], object]  # returns the result by value


def _steps(subject: Subject) -> Iterator[Step]:
    parties = subject.parties
    strategy = parties.view.strategy
    bench = subject.bench()

    def begin() -> object:
        return raw(make_server_half(parties.view).state.broadcast)

    def load() -> object:
        client = bench.client(1)
        return raw(client.personal), raw(client.tensors)

    def train() -> object:
        return frozen(bench.task(1))

    def score() -> object:
        client, model = bench.client(1), bench.worker.model.eval()
        with torch.no_grad():
            features = model.features(unit_range(client.data.images[:2]))
            heads = strategy.generic(model, client.broadcast)
            own = strategy.personal(model, client.broadcast, client.personal)
            logits = [head(features) for head in (*heads.values(), *own.values())]
            return raw({str(n): parties.view.plugin.predict(t) for n, t in enumerate(logits)})

    yield Step(("build", "init"), begin)
    yield Step(("init_personal", "setup"), load)
    yield Step(("objective", "local_update", "loss", "batches"), train)
    if not isinstance(strategy, StockStrategy):
        total = total_of(bench, updates_of(bench, COHORT))

        def aggregate() -> object:
            state = strategy.aggregate(bench.server.state, total)
            return raw(state.broadcast), raw(state.private)

        yield Step(("aggregate",), aggregate)
    yield Step(("generic", "personal", "personal_weights", "predict"), score)


@contextmanager
def _generators_kept() -> Iterator[None]:
    """Restore the global random generators at the end of the block."""
    states = random.getstate(), np.random.get_state(), torch_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        set_torch_state(states[2])


def _numpy_state() -> object:
    _, keys, *rest = np.random.get_state(legacy=True)
    return np.asarray(keys).tobytes(), rest


def draws_nothing_global(subject: Subject) -> str:
    """Check that no verb draws from, or seeds, a global random generator.

    Torch's global generator may be used where the core has seeded it: in ``build``, ``init`` and a
    client's task.
    """
    states = {"Python's random": random.getstate, "NumPy's global generator": _numpy_state}
    with _generators_kept():
        for number, step in enumerate(_steps(subject)):
            random.seed(number)  # a method may seed the generators alike each time
            np.random.seed(number)
            before = {name: state() for name, state in states.items()}
            step.call()
            for name, state in states.items():
                if state() != before[name]:
                    _refuse(subject, step, name)
            if _follows_torch(step):
                _refuse(subject, step, "torch's global generator")
    return "torch, NumPy and Python's random are left alone"


def _follows_torch(step: Step) -> bool:
    """Return True if a step's result is equal for equal seeds of torch, and differs for others."""

    def result(seed: int) -> object:
        torch.manual_seed(seed)
        return step.call()

    first, again, other = result(1), result(1), result(2)
    return first == again != other


def _refuse(subject: Subject, step: Step, generator: str) -> None:
    raise Violation(
        f"{own_verbs(subject, step.verbs)} draws from {generator}",
        change="draw from fedlt.rng.torch_generator(client.seed, 'purpose', client.round, "
        "client.cid) or numpy_generator; on the server key the draw by state.round",
        where=place(subject, *step.verbs),
    )


class _Watch:
    """Profiler that records the places where code under test reads the time."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self.seen: dict[str, str] = {}  # place -> function that is read there

    def __call__(self, frame: FrameType, event: str, called: Any) -> None:  # noqa: ANN401
        if event != "c_call":
            return
        name = _clock_name(called)
        caller = self._caller(frame) if name else None
        if caller is not None:
            file = caller.f_code.co_filename
            where = f"{shorten(file)}:{caller.f_lineno} ({caller.f_code.co_name})"
            self.seen.setdefault(where, name)

    def _caller(self, frame: FrameType | None) -> FrameType | None:
        while frame is not None:
            module = str(frame.f_globals.get("__name__", ""))
            if self._places.is_own(frame.f_code.co_filename, module):
                return frame
            if module.partition(".")[0] not in THROUGH:
                return None
            frame = frame.f_back
        return None


def _clock_name(called: object) -> str:
    """Return the name of a clock or entropy function; empty for other functions."""
    try:
        known = CLOCKS.get(called) if called in CLOCKS else None
    except TypeError:  # not hashable
        return ""
    if known:
        return str(known)
    if called is os.urandom:
        return "os.urandom"
    owner, name = getattr(called, "__self__", None), getattr(called, "__name__", "")
    is_date = isinstance(owner, type) and issubclass(owner, datetime.date)
    return f"datetime.{name}" if is_date and name in ("now", "utcnow", "today") else ""


def reads_no_clock(subject: Subject) -> str:
    """Check that no verb reads the time or the system's entropy."""
    watch = _Watch(Places(subject))
    with _generators_kept():
        for step in _steps(subject):
            _profiled(watch, step.call)
            for where, clock in watch.seen.items():
                raise Violation(
                    f"{own_verbs(subject, step.verbs)} reads {clock}",
                    change="clocks are client.round and client.rounds; take times from outside",
                    where=where,
                )
    return "neither time nor entropy of the machine is read"


def _profiled(watch: _Watch, call: Callable[[], object]) -> None:
    before = sys.getprofile()
    sys.setprofile(partial(watch))
    try:
        call()
    finally:
        sys.setprofile(before)
