"""Model-contrastive loss: Li et al., Model-contrastive federated learning, CVPR 2021.

https://arxiv.org/abs/2103.16257
"""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812
from torch import Tensor


def model_contrast(features: Tensor, toward: Tensor, away: Tensor, *, temperature: float) -> Tensor:
    """Return the contrastive loss that pulls features to one model's, away from another's; eq. 3.

    The loss in nats is -log[e^(s/t) / (e^(s/t) + e^(r/t))] = softplus((r - s) / t). Here s is the
    cosine of ``features`` and ``toward``, r the cosine of ``features`` and ``away``, and t the
    temperature. If ``toward`` equals ``away``, the loss is log 2 and the gradient zero.

    Args:
        features: Features (B, S, D) of the model that is trained.
        toward: Features (B, S, D) that pull, such as the global model's.
        away: Features (B, S, D) that push away, such as the previous local model's.
        temperature: Above 0.

    Returns:
        A scalar, the mean over the streams and the batch.
    """
    gap = F.cosine_similarity(features, away, dim=-1)
    gap = gap - F.cosine_similarity(features, toward, dim=-1)  # (B, S)
    return F.softplus(gap / temperature).mean()
