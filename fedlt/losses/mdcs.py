"""MDCS: Zhao et al., More diverse experts with consistency self-distillation, ICCV 2023.

https://arxiv.org/abs/2308.09922. Expert k learns by cross-entropy on logits shifted by
lambda_k log n, so that its plain logits favour frequent classes (lambda below 0), none (1), or rare
ones (above 1). The best plain logits are log p(x|y) + (1 - lambda_k) log prior: their mean over the
experts is unbiased where the mean of lambda is 1. Each expert's weak view teaches its strong view.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fedlt.losses.cross_entropy import cross_entropy

_ABSENT = -1e4  # the offset of an absent class, whatever the sign of lambda


def expert_offsets(log_prior: Tensor, lambdas: Sequence[float]) -> Tensor:
    """Return ``lambda_k log n_c`` for every expert and class (S, C).

    Of an absent class (-1e4 in ``log_prior``) every expert has -1e4: n^lambda itself would be
    infinite for a lambda below 0.

    Args:
        log_prior: Log counts or log frequencies (C,); a constant among them changes no loss.
        lambdas: Of the S experts.
    """
    exponents = torch.tensor(lambdas, device=log_prior.device)[:, None]  # (S, 1)
    return torch.where(log_prior > _ABSENT, exponents * log_prior, _ABSENT)


def diversity(shifted: Tensor, labels: Tensor) -> Tensor:
    """Return the sum over the experts of each one's mean cross-entropy, in nats: DL.

    Args:
        shifted: Logits (B, S, C) after :func:`expert_offsets` were added.
        labels: Classes (B,), int64.
    """
    return shifted.shape[1] * cross_entropy(shifted, labels)


def consistency(weak: Tensor, strong: Tensor, labels: Tensor, *, tau: float = 1.0) -> Tensor:
    """Return the sum over the experts of tau^2 KL(weak || strong) at temperature tau: CS.

    Each expert's mean is over its confident images, those whose weak view it has right (CIS); an
    expert without one adds 0. The weak view is the teacher and gets no gradient.

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
