"""Images that are left out by chance, and weights that make up for it: InfoBatch.

Qin et al., InfoBatch: Lossless training speed up by unbiased dynamic data pruning, ICLR 2024,
https://arxiv.org/abs/2303.04947, section 2.2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from fedlt.data.augment import normalize
from fedlt.models.modes import evaluating

if TYPE_CHECKING:
    from fedlt.client import Client


def soft_prune(scores: Tensor, ratio: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return which images an epoch keeps, and the factors of their losses.

    An image whose score is below the mean is left out with probability ``ratio``; else its factor
    is 1 / (1 - ratio). The others are kept, with factor 1. So the weighted sum over the kept images
    is, in expectation, the sum over all.

    Args:
        scores: Losses (n,), at least one.
        ratio: r in [0, 1).
        generator: CPU generator.

    Returns:
        Positions (k,), ascending, and factors (k,). Some image is always kept: none is below the
        mean where all are alike.
    """
    easy = (scores < scores.mean()).cpu()
    kept = ~easy | (torch.rand(len(scores), generator=generator) >= ratio)
    factors = torch.where(easy, 1 / (1 - ratio), 1.0)
    return kept.nonzero().flatten(), factors[kept]


@torch.no_grad()
def image_losses(client: Client) -> Tensor:
    """Return the cross-entropy (n,) of the client's model as it stands, in evaluation mode.

    Args:
        client: Its images are not augmented, and nothing in its model changes.
    """
    model, data = client.model, client.data
    found = []
    with evaluating(model):
        for rows in torch.split(data.indices.to(data.labels.device), 8 * client.local.batch_size):
            logits = client.plugin.predict(model(normalize(data.images[rows], data.mean, data.std)))
            found.append(functional.cross_entropy(logits, data.labels[rows], reduction="none"))
    return torch.cat(found)
