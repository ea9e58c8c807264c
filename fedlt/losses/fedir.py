"""FedIR: Hsu, Qi and Brown, Federated visual classification with real-world data distribution.

ECCV 2020, https://arxiv.org/abs/2003.08082. Client k's loss is re-weighted to the class mix of the
population: w(x, y) = p(x, y) / q_k(x, y), which is p(y) / q_k(y) where p(x | y) is common to all.
On a mini-batch the paper has self-normalised weights: each over the sum of the batch's.
"""

from __future__ import annotations

import torch
from torch import Tensor


def importance_weights(class_counts: Tensor, log_prior: Tensor) -> Tensor:
    """Return p(c) / q_k(c) for every class (C,); 0 for those that the client does not hold.

    The mean under q_k is the population's share of the classes that the client holds.

    Args:
        class_counts: (C,) of the client itself.
        log_prior: (C,) logarithm of p, up to a constant.
    """
    population = log_prior.double().softmax(dim=0)
    own = class_counts / class_counts.sum().clamp(min=1)
    ratio = population / torch.where(class_counts > 0, own, 1.0)
    return torch.where(class_counts > 0, ratio, 0.0).float()
