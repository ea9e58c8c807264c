"""MDCS: Zhao et al., More diverse experts with consistency self-distillation, ICCV 2023.

https://arxiv.org/abs/2308.09922. Expert k learns by cross-entropy on logits shifted by
lambda_k log n. The best logits without the shift are log p(x|y) + (1 - lambda_k) log prior. They
favour frequent classes for lambda below 1, rare classes for lambda above 1, and no class for 1.
Their mean over the experts is unbiased if the mean of lambda is 1. Each expert's weak view of an
image teaches the same expert's strong view.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fedlt.losses.cross_entropy import cross_entropy

_ABSENT = -1e4  # the offset of an absent class, whatever the sign of lambda


def expert_offsets(log_prior: Tensor, lambdas: Sequence[float]) -> Tensor:
    """Return the logit offset ``lambda_k log n_c`` of every expert and class (S, C).

    An absent class (-1e4 in ``log_prior``) has the offset -1e4 for every expert, since n^lambda
    would be infinite for a lambda below 0.

    Args:
        log_prior: Log counts or log frequencies (C,); adding a constant changes no loss.
        lambdas: One lambda per expert.
    """
    exponents = torch.tensor(lambdas, device=log_prior.device)[:, None]  # (S, 1)
    return torch.where(log_prior > _ABSENT, exponents * log_prior, _ABSENT)


def diversity(shifted: Tensor, labels: Tensor) -> Tensor:
    """Return the sum over experts of the expert's mean cross-entropy in nats: the paper's DL.

    Args:
        shifted: Logits (B, S, C) after :func:`expert_offsets` were added.
        labels: Classes (B,), int64.
    """
    return shifted.shape[1] * cross_entropy(shifted, labels)


def consistency(weak: Tensor, strong: Tensor, labels: Tensor, *, tau: float = 1.0) -> Tensor:
    """Return the sum over experts of tau^2 KL(weak || strong) at temperature tau: the paper's CS.

    Each expert takes the mean over its confident images, whose weak view it classifies correctly
    (CIS); an expert without a confident image adds 0. The weak view is the teacher, no gradient.

    Args:
        weak: Shifted logits (B, S, C) of the weak views.
        strong: Shifted logits (B, S, C) of the strong views.
        labels: Classes (B,), int64.
        tau: Above 0.

    Returns:
        A scalar in nats.
    """
    teacher = (weak.detach() / tau).log_softmax(dim=-1)
    student = (strong / tau).log_softmax(dim=-1)
    each = (teacher.exp() * (teacher - student)).sum(dim=-1)  # (B, S)
    confident = weak.detach().argmax(dim=-1) == labels[:, None]
    sums = torch.where(confident, each, 0.0).sum(dim=0)  # (S,)
    return tau**2 * (sums / confident.sum(dim=0).clamp(min=1)).sum()
