"""The update of a client in a private run: its clipped step, which weighs as every other one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fedlt.federation.steps import start_of, step_norm
from fedlt.privacy.clipping import clip_factor
from fedlt.privacy.noise import gaussian

if TYPE_CHECKING:
    from fedlt.client import Client
    from fedlt.update import Update

_KEPT = ("steps", "personal_steps")  # metrics that tell the number of images at most


def private_step(
    update: Update,
    client: Client,
    names: Sequence[str],
    *,
    mechanism: str,
    norm: float | None,
    noise: float,
    seed: int,
) -> tuple[Update, float | None]:
    """Return the update as a step with weight 1, and its length before clipping.

    With ``local`` the client adds its own noise, and tells neither length nor losses; nor does it
    tell the length with ``sample``, where gradients are clipped and not the step.

    Args:
        update: A client's answer.
        client: The client, after its task.
        names: Shared parameters, all that a client of a private run sends.
        mechanism: ``central``, ``local`` or ``sample``; the noise of ``sample`` is in the training.
        norm: The clipping norm; None: nothing is clipped.
        noise: Noise multiplier of the client's own noise.
        seed: Keys that noise, with round and client.

    Raises:
        ValueError: If the update holds more than the model's shared parameters.
    """
    _check(update, names)
    if mechanism == "sample" and client.steps_done > client.planned_steps():
        raise ValueError(
            f"privacy.mechanism sample: the task took {client.steps_done} steps, and epsilon "
            f"counts {client.planned_steps()}"
        )
    start = start_of(update, client.broadcast, names)
    length = step_norm(update.sums, start, names)
    with torch.no_grad():
        steps = {n: update.sums[n] - start[n] for n in names if n in update.sums}
    steps |= {n: torch.zeros_like(client.broadcast[n]) for n in names if n not in steps}
    if mechanism != "sample":
        factor = clip_factor(length, norm)
        steps = {n: steps[n] * factor for n in names}
    metrics = update.metrics
    if mechanism == "local":
        metrics = {name: metrics[name] for name in _KEPT if name in metrics}
        steps = _with_noise(steps, client, names, noise * (norm or 0.0), seed)
    private = replace(update, sums=steps, weight=1.0, metrics=metrics, is_step=True)
    return private, length if mechanism == "central" else None


def _with_noise(
    steps: Mapping[str, Tensor], client: Client, names: Sequence[str], deviation: float, seed: int
) -> dict[str, Tensor]:
    if not deviation:
        return dict(steps)
    drawn = gaussian(steps, names, deviation, client.round, client.cid, seed=seed)
    return {name: steps[name] + drawn[name].to(steps[name].device) for name in names}


def _check(update: Update, names: Sequence[str]) -> None:
    beside = [name for name in (*update.sums, *update.plain) if name not in set(names)]
    if beside:
        raise ValueError(
            f"privacy: the update holds {beside[0]!r} beside the model's shared parameters, which "
            "is not clipped"
        )
