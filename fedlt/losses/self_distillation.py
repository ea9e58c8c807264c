"""Distillation from weak to strong views of the same images, within one model.

Yan et al., You are your own best teacher (FedYoYo), ICCV 2025, https://arxiv.org/abs/2503.06916;
the confidence mask is that of Zhao et al., MDCS, ICCV 2023, https://arxiv.org/abs/2308.09922.
"""

from __future__ import annotations

import torch
from torch import Tensor


def weak_to_strong(
    weak: Tensor, strong: Tensor, labels: Tensor, *, temperature: float = 1.0
) -> Tensor:
    """Return KL(weak || strong) in nats over the images whose weak view is classified correctly.

    The weak view is the teacher and gets no gradient. As in the authors' code, the divergence is
    not multiplied by the temperature's square.

    Args:
        weak: Logits (B, S, C) of the weak views.
        strong: Logits (B, S, C) of the strong views.
        labels: Classes (B,), int64.
        temperature: T, above 0, by which both views' logits are divided.

    Returns:
        A scalar, the mean over the correct pairs of image and stream; 0 if there is none.
    """
    teacher = (weak.detach() / temperature).log_softmax(dim=-1)
    student = (strong / temperature).log_softmax(dim=-1)
    each = (teacher.exp() * (teacher - student)).sum(dim=-1)  # (B, S)
    is_right = (teacher.argmax(dim=-1) == labels[:, None]).to(each.dtype)
    return (torch.where(is_right > 0, each, 0.0)).sum() / is_right.sum().clamp(min=1)
