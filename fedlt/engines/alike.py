"""Groups of clients that can be stacked: equal training requests, tensors of equal shapes."""

from __future__ import annotations

import functools
from collections.abc import Hashable, Sequence
from types import FunctionType, MethodType

from fedlt.engines.lockstep import TrainRequest


def group_alike(requests: Sequence[TrainRequest]) -> list[list[TrainRequest]]:
    """Return the requests in groups that can be stacked, ordered by each group's first request."""
    groups: dict[Hashable, list[TrainRequest]] = {}
    for request in requests:
        groups.setdefault(tuple(_demands(request).values()), []).append(request)
    return list(groups.values())


def describe_difference(one: TrainRequest, other: TrainRequest) -> str:
    """Return the first difference between two requests that cannot be stacked together."""
    pairs = zip(_demands(one).items(), _demands(other).values(), strict=True)
    return next(what for (what, mine), his in pairs if mine != his)


def _demands(request: TrainRequest) -> dict[str, Hashable]:
    client, phase = request.client, request.phase
    tensors = client.tensors.items()
    return {
        "the function given to client.train (a method reads no variables of a client's own)": (
            _identity(phase.objective)
        ),
        "the parameters that are trained": (phase.trained, phase.no_decay),
        "how the steps are taken": (_identity(phase.schedule), phase.ascent, phase.optimizer),
        "client.local": client.local,
        "client.round": (client.round, client.rounds),
        "client.broadcast": tuple((name, id(t)) for name, t in client.broadcast.items()),
        "the names or shapes of client.tensors": tuple((n, t.shape, t.dtype) for n, t in tensors),
    }


def _identity(value: object) -> Hashable:
    """Return a key that is equal for equal functions, though each client has its own object.

    Two functions defined at the same place are equal if their closures hold the same objects.
    """
    if isinstance(value, MethodType):
        return value.__func__, id(value.__self__)
    if isinstance(value, functools.partial):
        keywords = tuple((name, _identity(v)) for name, v in value.keywords.items())
        return _identity(value.func), tuple(map(_identity, value.args)), keywords
    if isinstance(value, FunctionType):
        held = [cell.cell_contents for cell in value.__closure__ or ()]
        defaults = [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
        return value.__code__, tuple(map(_identity, [*held, *defaults]))
    if value is None or isinstance(value, bool | int | float | str):
        return type(value), value
    return id(value)
