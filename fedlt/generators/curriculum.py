"""Composition of DisCL's epochs: Liang et al., Diffusion curriculum, ICCV 2025, algorithm 1.

https://arxiv.org/abs/2410.13674. An epoch holds all real images of the tail classes, synthetic tail
images of the current level, and some of the other images. The numbers are chosen so that the tail's
share of the images is the tail's share of the classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def stage_of(step: int, steps: int, stages: int) -> int | None:
    """Return the stage of the curriculum to which a step belongs.

    All stages have the same length, or the first ones are longer by one step.

    Args:
        step: Number of the step, from 0.
        steps: Steps of the whole curriculum.
        stages: Number of stages, at least 1.

    Returns:
        0 to stages - 1; None after the end of the curriculum.
    """
    if step >= steps:
        return None
    length, longer = divmod(steps, stages)
    boundary = longer * (length + 1)
    return step // (length + 1) if step < boundary else longer + (step - boundary) // length


@dataclass(frozen=True)
class EpochPlan:
    """Number of images of each kind in an epoch, besides all real tail images."""

    kept: int  # images of other classes
    filled: int  # additional tail images, synthetic or repeated


def plan_epoch(
    tail: int, others: int, *, share: float, keep: float, cap: float, least: int
) -> EpochPlan:
    """Return the numbers of images in an epoch where whole classes are hard.

    Args:
        tail: Number of real tail images.
        others: Number of images of other classes.
        share: Share of the tail classes among the client's classes, also wanted for the images.
        keep: Share of the other images to keep.
        cap: Largest number of additional tail images, as a multiple of ``tail``.
        least: Smallest number of other images to keep, such as one batch.
    """
    balanced = int((1 - share) / share * tail) if share else others  # without additional images
    kept = min(others, max(int(keep * others), least, balanced))
    most = int(cap * tail)
    wanted = most if share >= 1 else int(share / (1 - share) * kept + 1e-9) - tail
    return EpochPlan(kept, max(0, min(wanted, most)))


def plan_hard(hard: int, others: int, *, cap: float) -> EpochPlan:
    """Return the numbers of images in an epoch where single images are hard, not classes.

    The epoch keeps all other images, and takes the largest number of additional images.

    Args:
        hard: Number of real hard images.
        others: Number of other images.
        cap: Number of additional hard images, as a multiple of ``hard``.
    """
    return EpochPlan(others, int(cap * hard))


def draw_epoch(
    tail: Tensor, others: Tensor, synthetic: Tensor, plan: EpochPlan, generator: torch.Generator
) -> Tensor:
    """Return the rows of an epoch: all tail images, some other images, and additional tail images.

    Args:
        tail: Rows of the real tail images, at least one.
        others: Rows of the other images.
        synthetic: Rows of the synthetic images to add; if empty, real tail images are repeated.
        plan: Number of images of each kind.
        generator: CPU generator.
    """
    kept = others[torch.randperm(len(others), generator=generator)[: plan.kept]]
    source = synthetic if len(synthetic) else tail
    whole, rest = divmod(plan.filled, len(source))  # uses of two images differ by at most one
    some = source[torch.randperm(len(source), generator=generator)[:rest]]
    return torch.cat([tail, kept, *[source] * whole, some])


def own_factors(rows: Tensor, kinds: Tensor, counts: Tensor) -> Tensor:
    """Return loss factors by row, which turn an epoch's mean into the mean over the real images.

    Args:
        rows: Rows of an epoch; rows below n are real images, the others synthetic.
        kinds: Kind (n,) of each real image, such as the class. Images of one kind must have the
            same chance to be in the epoch.
        counts: Number of real images of each kind.

    Returns:
        Factors by row: 0 for synthetic images, else (n_c / n) / (drawn of kind c / all drawn).
    """
    real = rows[rows < len(kinds)]
    drawn = kinds[real].bincount(minlength=len(counts)).clamp(min=1)
    factors = (counts / len(kinds)) / (drawn / len(rows))  # one per kind
    table = torch.zeros(int(rows.max()) + 1)
    table[real] = factors[kinds[real]].float()
    return table


def most_progress(before: Tensor, after: Tensor) -> int:
    """Return the stage with the most progress, the first stage in a tie (algorithm 2).

    Progress is the mean rise of the true class's probability over a stage's images, without
    outliers. As in the authors' code, a rise is an outlier if it lies more than 1.5 times the
    interquartile range outside the quartiles.

    Args:
        before: Probabilities (V, stages) of the true class before training, V at least 1.
        after: Probabilities (V, stages) of the true class after training on real images.
    """
    gains = (after - before).double()
    quarter, three_quarters = gains.quantile(torch.tensor([0.25, 0.75]).double(), dim=0)
    reach = 1.5 * (three_quarters - quarter)
    kept = (gains >= quarter - reach) & (gains <= three_quarters + reach)
    means = torch.where(kept, gains, 0.0).sum(dim=0) / kept.sum(dim=0)
    return int(means.argmax())
