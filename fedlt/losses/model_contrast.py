"""Model-contrastive loss: Li et al., Model-contrastive federated learning, CVPR 2021.

https://arxiv.org/abs/2103.16257
"""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812
from torch import Tensor


def model_contrast(features: Tensor, toward: Tensor, away: Tensor, *, temperature: float) -> Tensor:
    """Return how much nearer features are to one model's than to another's, in nats; eq. 3.

    It is -log[e^(s/t) / (e^(s/t) + e^(r/t))] = softplus((r - s) / t), with s the cosine of
    ``features`` and ``toward``, r that of ``features`` and ``away``, t the temperature. Where both
    are the same it is log 2, without a gradient.

    Args:
        features: Features (B, S, D) of the model that is trained.
        toward: Features (B, S, D) to come near to.
        away: Features (B, S, D) to leave.
        temperature: Above 0.

    Returns:
        A scalar, the mean over the streams and the batch.
    """
    gap = F.cosine_similarity(features, away, dim=-1)
    gap = gap - F.cosine_similarity(features, toward, dim=-1)  # (B, S)
    return F.softplus(gap / temperature).mean()
