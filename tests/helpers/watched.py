"""Watch who reads the observer of a simulation, and what a party can reach from its own objects."""

from __future__ import annotations

import gc
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import numpy as np
import torch

from fedlt.engines.engine import Engine
from fedlt.federation import Observer

DRIVER = ("fedlt.simulate", "fedlt.apps", "fedlt.realigning")  # who holds the observer
ORDERED = (  # what the driver does with it
    "fedlt.federation", "fedlt.worker.scorer", "fedlt.worker.diagnosis", "fedlt.engines",
    "fedlt.evaluation",
)  # fmt: skip
OURS = ("fedlt", "strategies", "clients", "test_")  # beginnings of modules that count
SKIPPED = (type, types.ModuleType, types.CodeType, types.FrameType)


class LeakError(AssertionError):
    """Raised where a module that is not the driver's reads the observer."""


def modules_between_driver_and_read() -> Iterator[str]:
    """Yield the modules on the stack from the reader outwards, the driver's first frame last."""
    frame = sys._getframe(2)
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name.startswith(OURS):
            if issubclass(type(frame.f_locals.get("self")), Engine):  # also a user's own
                yield "fedlt.engines"
                return  # whoever asks an engine for its next reply does not read
            yield name
            if name.startswith(DRIVER):
                return
        frame = frame.f_back


@contextmanager
def watched() -> Iterator[set[str]]:
    """Let every read of the observer raise that does not come from the driver.

    Yields:
        The modules that have read it so far: the innermost of each read.
    """
    readers: set[str] = set()

    def read(self, name):
        modules = list(modules_between_driver_and_read())
        for module in modules:
            if not module.startswith((*DRIVER, *ORDERED)):
                raise LeakError(f"{module} reads the observer: {name}")
        readers.update(modules[:1])
        return object.__getattribute__(self, name)

    with mock.patch.object(Observer, "__getattribute__", read):
        yield readers


def reachable(*roots: object) -> list[object]:
    """Return every object that code can get at from ``roots`` by attributes, items and closures."""
    seen, waiting = {}, list(roots)
    while waiting:
        item = waiting.pop()
        if id(item) not in seen and not isinstance(item, SKIPPED):
            seen[id(item)] = item
            waiting += parts_of(item)
    return list(seen.values())


def parts_of(item: object) -> list[object]:
    """Return what an object refers to; of a function its closure and defaults, no globals."""
    if isinstance(item, types.FunctionType):
        return [item.__closure__, item.__defaults__, item.__kwdefaults__]
    if isinstance(item, np.ndarray):
        return [item.base]
    return gc.get_referents(item)


def arrays_in(objects: list[object]) -> list[np.ndarray]:
    """Return the arrays among objects, and the memory of the tensors among them."""
    arrays = [item for item in objects if isinstance(item, np.ndarray)]
    tensors = [item for item in objects if isinstance(item, torch.Tensor)]
    flat = [t.detach() for t in tensors if t.device.type == "cpu" and t.layout == torch.strided]
    return arrays + [t.numpy() for t in flat if t.dtype != torch.bfloat16 and not t.is_conj()]
