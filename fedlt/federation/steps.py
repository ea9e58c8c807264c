"""A client's step: what its update differs in from the broadcast that it started from.

This is the clients' part of the faults: tensors, and none of the server's draws, which
:mod:`fedlt.federation.faults` has.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from fedlt.strategy import Tensors, Update


def start_of(
    update: Update, broadcast: Mapping[str, Tensor], names: Iterable[str]
) -> Mapping[str, Tensor]:
    """Return what an update's tensors are measured from: the broadcast; zeros if they are steps.

    Args:
        update: A client's answer.
        broadcast: What the client started from.
        names: Shared parameters.
    """
    if not update.is_step:
        return broadcast
    return {name: torch.zeros_like(broadcast[name]) for name in names if name in broadcast}


def step_norm(
    sums: Mapping[str, Tensor], broadcast: Mapping[str, Tensor], names: Iterable[str]
) -> float:
    """Return the Euclidean norm of an update's step over the tensors named, added in float64.

    Args:
        sums: The update's tensors.
        broadcast: What they are measured from: :func:`start_of`.
        names: Shared parameters; those that are not in both are left out.
    """
    norms = [
        torch.linalg.vector_norm((sums[n] - broadcast[n]).contiguous(), dtype=torch.float64)
        for n in names
        if n in sums and n in broadcast
    ]
    return math.hypot(*torch.stack(norms).tolist()) if norms else 0.0


def corrupted(
    sums: Tensors,
    broadcast: Mapping[str, Tensor],
    names: Iterable[str],
    *,
    kind: str,
    factor: float,
) -> Tensors:
    """Return an update's tensors with those named made wrong; nothing is written.

    Args:
        sums: The update's tensors.
        broadcast: What they are measured from: :func:`start_of`.
        names: Shared parameters; those that are not in both stay as they are.
        kind: ``nan`` or ``inf``: every entry is that; ``scale``: the step times ``factor``.
        factor: Of the step.
    """
    wrong = dict(sums)
    for name in names:
        if name in sums and name in broadcast:
            start = broadcast[name]
            step = factor * (sums[name] - start) if kind == "scale" else float(kind)
            wrong[name] = (start + step).detach()
    return wrong
