"""The release of a round: the noisy sum of the cohort's clipped steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from fedlt.privacy.noise import counted, gaussian
from fedlt.privacy.plan import PrivacyPlan
from fedlt.update import Tensors, joint_norm


@dataclass(frozen=True)
class Released:
    """The release of a round. The signal, without noise, is for reports of simulations."""

    sums: Tensors  # divisor * broadcast + sum of steps + noise, by name
    divisor: float  # the sums' weight; the same for every cohort of `central`
    norm: float | None  # the clipping norm of the round; None: nothing was clipped
    next_norm: float | None
    signal: float | None  # length of the sum of steps over that of the noise; None without noise


def release(
    plan: PrivacyPlan,
    broadcast: Mapping[str, Tensor],
    steps: Tensors,
    lengths: Sequence[float],
    *,
    names: Sequence[str],
    norm: float | None,
    answered: int,
    round_: int,
    seed: int,
) -> Released:
    """Return the release of a round.

    Args:
        plan: The privacy of the run.
        broadcast: What the cohort received.
        steps: Sum over the cohort of the clipped steps; empty for an empty cohort.
        lengths: Length of each client's step before clipping; empty where nobody tells it.
        names: Names of the tensors that clients send.
        norm: The clipping norm of the round.
        answered: Clients that answered.
        round_: The round.
        seed: Of the run.
    """
    is_central = plan.rules.mechanism == "central"
    divisor = float(plan.cohort if is_central else max(answered, 1))
    bound = math.inf if norm is None else norm
    deviation = plan.update_noise * bound if is_central and plan.update_noise else 0.0
    noise = gaussian(broadcast, names, deviation, round_, seed=seed) if deviation else {}
    sums: Tensors = {}
    for name in names:
        step = steps.get(name)
        total = broadcast[name] * divisor if step is None else broadcast[name] * divisor + step
        sums[name] = total + noise[name].to(total.device) if name in noise else total
    inside = [float(length <= bound) for length in lengths]
    own_noise = deviation or (
        plan.noise * bound * math.sqrt(answered) if plan.rules.mechanism == "local" else 0.0
    )
    entries = sum(broadcast[name].numel() for name in names)
    return Released(
        sums,
        divisor,
        norm,
        _next_norm(plan, norm, lengths, inside, entries, round_, seed) if is_central else norm,
        joint_norm(steps[n] for n in names if n in steps) / (own_noise * math.sqrt(entries))
        if own_noise
        else None,
    )


def _next_norm(
    plan: PrivacyPlan,
    norm: float | None,
    lengths: Sequence[float],
    inside: Sequence[float],
    entries: int,
    round_: int,
    seed: int,
) -> float | None:
    """Return the next norm from counts with noise.

    A count adds a number from 0 to 1 of every client, less 1/2: so it changes by at most 1/2 with a
    client, and its mean over the cohort's expected size, plus 1/2, is the mean of the numbers.
    """
    if norm is None or plan.rules.clipping == "fixed":
        return norm
    outside = [min(max(length - norm, 0.0) / norm, 1.0) for length in lengths]
    shares = []
    for number, values in enumerate((inside, outside)):
        total = sum(value - 0.5 for value in values)
        deviation = plan.count_noise if plan.noise else 0.0
        noisy = counted(total, deviation, round_, number, seed=seed)
        shares.append(noisy / plan.cohort + 0.5)
    return plan.next_norm(norm, entries, shares[0], shares[1] * norm)
