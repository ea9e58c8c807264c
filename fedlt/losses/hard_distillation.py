"""Hard-label distillation with deferred re-weighting: the losses of DeiT-LT's two tokens.

Rangwani et al., DeiT-LT: Distillation strikes back for vision transformer training on long-tailed
datasets, CVPR 2024, https://arxiv.org/abs/2404.02900. Re-weighting: Cao et al., LDAM-DRW, NeurIPS
2019, https://arxiv.org/abs/1906.07413.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from fedlt.losses.class_balanced import effective_number_weights
from fedlt.losses.cross_entropy import cross_entropy_rows


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean of ``-sum_c targets_c log softmax(logits)_c``, in nats.

    Args:
        logits: (B, C).
        targets: (B, C), each row a distribution.
    """
    return -(targets * F.log_softmax(logits, dim=-1)).sum(dim=-1).mean()


def reweighting(class_counts: Tensor, *, beta: float, cap: float) -> Tensor:
    """Return a weight for every class (C,), also for absent classes, which a teacher may predict.

    The weights are effective-number weights, cut at ``cap`` times the smallest weight, and have a
    mean of 1 over the classes with images. A class without images has the largest of these weights
    (its effective-number weight would be infinite).

    Args:
        class_counts: Class counts (C,).
        beta: In [0, 1); 0 makes all weights 1.
        cap: Largest ratio of two weights, at least 1.
    """
    held = class_counts > 0
    weights = effective_number_weights(class_counts, beta=beta)
    smallest = torch.where(held, weights, torch.inf).amin()
    cut = torch.minimum(weights, cap * smallest)
    scaled = cut * held.sum() / cut.sum().clamp(min=1e-12)
    largest = torch.where(held.any(), scaled.amax(), 1.0)
    return torch.where(held, scaled, largest)


def mean_weight(class_counts: Tensor, weights: Tensor) -> Tensor:
    """Return the mean weight of an image, sum_c pi_c w_c, a scalar; 1 if there are no images."""
    total = class_counts.sum()
    mean = (class_counts * weights).sum() / total.clamp(min=1)
    return torch.where(total > 0, mean, 1.0)


def weighted_distillation(
    logits: Tensor, taught: Tensor, weights: Tensor, *, mean: Tensor | None = None
) -> Tensor:
    """Return ``sum_i w_i CE_i / sum_i w_i``, w_i the weight of the class that the teacher predicts.

    Args:
        logits: (B, C).
        taught: Classes (B,) that the teacher predicts, int64.
        weights: Class weights (C,), above 0.
        mean: Divide by B times this mean weight instead. Example: in a batch of one class,
            dividing by the batch's own weights would cancel the class weight.
    """
    own = weights[taught]
    total = own.sum() if mean is None else len(taught) * mean
    return (own * cross_entropy_rows(logits, taught)).sum() / total
