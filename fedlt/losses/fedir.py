"""FedIR: Hsu, Qi and Brown, Federated visual classification with real-world data distribution.

ECCV 2020, https://arxiv.org/abs/2003.08082. Client k's loss is re-weighted to the class mix of the
population. The weight is w(x, y) = p(x, y) / q_k(x, y), which is p(y) / q_k(y) if all clients have
the same p(x | y). In a mini-batch the paper divides each weight by the sum of the batch's weights.
"""

from __future__ import annotations

import torch
from torch import Tensor


def importance_weights(class_counts: Tensor, log_prior: Tensor) -> Tensor:
    """Return p(c) / q_k(c) for every class (C,); 0 for classes that the client does not hold.

    The mean of the weights under q_k is the population's share of the held classes.

    Args:
        class_counts: The client's class counts (C,), which give q_k.
        log_prior: Logarithm of the population's prior p (C,), up to a constant.
    """
    population = log_prior.double().softmax(dim=0)
    own = class_counts / class_counts.sum().clamp(min=1)
    ratio = population / torch.where(class_counts > 0, own, 1.0)
    return torch.where(class_counts > 0, ratio, 0.0).float()
