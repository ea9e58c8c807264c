"""How features lie about the means of their classes."""

from __future__ import annotations

import torch
from torch import Tensor


def class_deviations(features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Return rows R (n, D) with R^T R the mean covariance of the classes, weighted by their counts.

    A class's covariance is divided by its count less 1; that of a single row is zero. Standard
    normal numbers (n,) times R have this covariance.

    Args:
        features: (n, D).
        labels: Classes (n,), int64.
        num_classes: C.
    """
    count = torch.zeros(num_classes, device=features.device).index_add_(
        0, labels, torch.ones(len(labels), device=features.device)
    )
    sums = features.new_zeros(num_classes, features.shape[1]).index_add_(0, labels, features)
    own = count[labels][:, None]  # (n, 1)
    centred = features - sums[labels] / own
    return centred * (own / (own - 1).clamp(min=1) / len(labels)).sqrt()
