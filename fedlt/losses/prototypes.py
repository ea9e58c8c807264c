"""Distances of features to class prototypes: Tan et al., FedProto, AAAI 2022.

https://arxiv.org/abs/2105.00243. A prototype is the mean feature of a class.
"""

from __future__ import annotations

import torch
from torch import Tensor

_UNKNOWN = -1e9  # logit of a class without a prototype


def prototype_distance(
    features: Tensor, labels: Tensor, prototypes: Tensor, known: Tensor
) -> Tensor:
    """Return the mean squared distance of features to the prototypes of their classes.

    Args:
        features: (B, S, D).
        labels: Classes (B,), int64.
        prototypes: (C, S, D), without gradient.
        known: (C,), 1 for a class with a prototype, else 0. Images of the others add 0.

    Returns:
        A scalar, the mean over batch, streams and features.
    """
    squares = (features - prototypes[labels]).square().mean(dim=(1, 2))  # (B,)
    return (squares * known[labels]).mean()


def nearest_prototype(features: Tensor, *, prototypes: Tensor, known: Tensor) -> Tensor:
    """Return minus the squared distance to every prototype, as logits (B, S, C).

    Args:
        features: (B, S, D).
        prototypes: (C, S, D).
        known: (C,), 1 for a class with a prototype, else 0; a class with 0 is never the nearest.
    """
    products = torch.einsum("bsd,csd->bsc", features, prototypes)
    lengths = features.square().sum(-1, keepdim=True)  # (B, S, 1)
    distances = lengths - 2 * products + prototypes.square().sum(-1).T  # (B, S, C)
    return torch.where(known > 0, -distances, torch.full_like(distances, _UNKNOWN))
