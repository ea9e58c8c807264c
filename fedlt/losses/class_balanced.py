"""Class-balanced weights: Cui et al., Class-balanced loss based on effective number of samples.

CVPR 2019, https://arxiv.org/abs/1901.05555
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def effective_number_weights(class_counts: Tensor, *, beta: float) -> Tensor:
    """Return ``(1 - beta) / (1 - beta^n)`` for every class, scaled to a mean of 1 (equation 9).

    n is the class count. The mean is over the classes that the client holds; other classes have
    weight 0. With ``beta`` 0, or with equal counts, every held class has exactly weight 1.

    Args:
        class_counts: The client's class counts (C,).
        beta: In [0, 1); for beta near 1 the weights tend to 1 / n.

    Returns:
        float32 (C,).
    """
    held = class_counts > 0
    counts = class_counts.clamp(min=1).double()
    if beta == 0:
        raw = torch.ones_like(counts)
    else:
        raw = (1 - beta) / -torch.expm1(counts * math.log(beta))
    raw = torch.where(held, raw, 0.0)
    mean = raw.sum() / held.sum().clamp(min=1)
    return (raw / mean.clamp(min=1e-300)).float()
