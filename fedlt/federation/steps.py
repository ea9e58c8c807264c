"""A client's step: the difference between its update and the broadcast that it started from.

This is the clients' part of the faults: tensors, and none of the server's draws, which
:mod:`fedlt.federation.faults` has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from fedlt.strategy import Tensors, Update
from fedlt.update import joint_norm


def start_of(
    update: Update, broadcast: Mapping[str, Tensor], names: Iterable[str]
) -> Mapping[str, Tensor]:
    """Return the origin of an update's tensors: the broadcast, or zeros if the tensors are steps.

    Args:
        update: A client's answer.
        broadcast: The tensors that the client received.
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
        broadcast: The origin of the step: :func:`start_of`.
        names: Shared parameters; names that are not in both are left out.
    """
    return joint_norm(sums[n] - broadcast[n] for n in names if n in sums and n in broadcast)


def corrupted(
    sums: Tensors,
    broadcast: Mapping[str, Tensor],
    names: Iterable[str],
    *,
    kind: str,
    factor: float,
) -> Tensors:
    """Return an update's tensors, the named ones corrupted; the update itself is not changed.

    Args:
        sums: The update's tensors.
        broadcast: The origin of the step: :func:`start_of`.
        names: Shared parameters; names that are not in both are not changed.
        kind: ``nan`` or ``inf``: the value of every entry; ``scale``: the step times ``factor``.
        factor: Of the step.
    """
    wrong = dict(sums)
    for name in names:
        if name in sums and name in broadcast:
            start = broadcast[name]
            step = factor * (sums[name] - start) if kind == "scale" else float(kind)
            wrong[name] = (start + step).detach()
    return wrong
