"""Distillation from a teacher on a subset of the classes.

Hinton et al., Distilling the knowledge in a neural network, 2015, https://arxiv.org/abs/1503.02531
"""

from __future__ import annotations

import torch
from torch import Tensor

_OUT = -1e4  # added to the logits of excluded classes: their probability is exactly 0


def not_true(labels: Tensor, num_classes: int) -> Tensor:
    """Return a mask (B, 1, C), True for all classes but the image's own class."""
    classes = torch.arange(num_classes, device=labels.device)
    return (classes != labels[:, None])[:, None]


def masked_divergence(
    student: Tensor, teacher: Tensor, student_mask: Tensor, teacher_mask: Tensor, *, tau: float
) -> Tensor:
    """Return KL(teacher || student) in nats, with softmaxes at temperature tau over masked classes.

    Args:
        student: Logits (B, S, C).
        teacher: Logits (B, S, C) without a gradient.
        student_mask: Classes in the student's softmax, bool, broadcast to (B, S, C).
        teacher_mask: Classes in the teacher's softmax, a subset of the student's. An image with
            an empty teacher mask adds 0.
        tau: Temperature, above 0. The result is not multiplied by tau^2.

    Returns:
        A scalar, the mean over the streams and the batch.
    """
    own = (student / tau + torch.where(student_mask, 0.0, _OUT)).log_softmax(dim=-1)
    wanted = (teacher / tau + torch.where(teacher_mask, 0.0, _OUT)).log_softmax(dim=-1)
    share = torch.where(teacher_mask, wanted.exp(), 0.0)  # (B, S, C)
    return (share * (wanted - own)).sum(dim=-1).mean()
