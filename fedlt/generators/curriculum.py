"""What an epoch of DisCL is made of: Liang et al., Diffusion curriculum, ICCV 2025, algorithm 1.

https://arxiv.org/abs/2410.13674. Each epoch holds every real image of the tail, synthetic images of
the current level, and a part of the other images, so that the tail's share is that of its classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def stage_of(step: int, steps: int, stages: int) -> int | None:
    """Return the stage of a step: all stages are equally long, the first ones by one more.

    Args:
        step: From 0.
        steps: Of the whole curriculum.
        stages: At least 1.

    Returns:
        0 to stages - 1; None after the curriculum.
    """
    if step >= steps:
        return None
    length, longer = divmod(steps, stages)
    boundary = longer * (length + 1)
    return step // (length + 1) if step < boundary else longer + (step - boundary) // length


@dataclass(frozen=True)
class EpochPlan:
    """How many images of each kind an epoch has."""

    kept: int  # images of other classes
    filled: int  # further tail images, besides every real one


def plan_epoch(
    tail: int, others: int, *, share: float, keep: float, cap: float, least: int
) -> EpochPlan:
    """Return how many images an epoch draws.

    Args:
        tail: Real tail images.
        others: Images of other classes.
        share: Of the tail classes among the client's classes: the tail's share that is wanted.
        keep: Share of the other images that is kept.
        cap: Most further tail images, in real ones.
        least: Other images that are kept at least: a batch.
    """
    balanced = int((1 - share) / share * tail) if share else others  # beside the real tail alone
    kept = min(others, max(int(keep * others), least, balanced))
    most = int(cap * tail)
    wanted = most if share >= 1 else int(share / (1 - share) * kept + 1e-9) - tail
    return EpochPlan(kept, max(0, min(wanted, most)))


def plan_hard(hard: int, others: int, *, cap: float) -> EpochPlan:
    """Return how many images an epoch draws where single images are hard, not classes.

    All other images, and the most synthetic ones.

    Args:
        hard: Real hard images.
        others: The other images.
        cap: Most further hard images, in real ones.
    """
    return EpochPlan(others, int(cap * hard))


def draw_epoch(
    tail: Tensor, others: Tensor, synthetic: Tensor, plan: EpochPlan, generator: torch.Generator
) -> Tensor:
    """Return the rows of an epoch: all of the tail, some others, and what fills the tail.

    Args:
        tail: Rows of the real tail images, at least one.
        others: Rows of the other images.
        synthetic: Rows of the synthetic images to fill with; none: real tail images fill.
        plan: How many.
        generator: CPU generator.
    """
    kept = others[torch.randperm(len(others), generator=generator)[: plan.kept]]
    source = synthetic if len(synthetic) else tail
    whole, rest = divmod(plan.filled, len(source))  # each as often as any other, give or take one
    some = source[torch.randperm(len(source), generator=generator)[:rest]]
    return torch.cat([tail, kept, *[source] * whole, some])


def own_factors(rows: Tensor, kinds: Tensor, counts: Tensor) -> Tensor:
    """Return the factor of every row that turns an epoch's mean into that over the real images.

    Args:
        rows: Rows of an epoch.
        kinds: Kinds (n,) of the client's real images, whose rows come first: images of one kind,
            such as a class, are as likely to be drawn.
        counts: How many images of each kind there are.

    Returns:
        (n + synthetic,) by row: 0 for synthetic images, else (n_c / n) / (drawn of c / all drawn).
    """
    real = rows[rows < len(kinds)]
    drawn = kinds[real].bincount(minlength=len(counts)).clamp(min=1)
    factors = (counts / len(kinds)) / (drawn / len(rows))  # one a kind
    table = torch.zeros(int(rows.max()) + 1)
    table[real] = factors[kinds[real]].float()
    return table


def most_progress(before: Tensor, after: Tensor) -> int:
    """Return the stage with the most progress, the first of equals (algorithm 2).

    A stage's progress is the mean over its images of how much the probability of the true class
    rose, without outliers: as in the authors' code those that lie more than 1.5 times the
    interquartile range outside the quartiles.

    Args:
        before: Probabilities (V, stages) before training on real images, V at least 1.
        after: The same after it.
    """
    gains = (after - before).double()
    quarter, three_quarters = gains.quantile(torch.tensor([0.25, 0.75]).double(), dim=0)
    reach = 1.5 * (three_quarters - quarter)
    kept = (gains >= quarter - reach) & (gains <= three_quarters + reach)
    means = torch.where(kept, gains, 0.0).sum(dim=0) / kept.sum(dim=0)
    return int(means.argmax())
