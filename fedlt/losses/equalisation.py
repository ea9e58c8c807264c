"""Equalisation loss: Tan et al., Equalization loss for long-tailed object recognition, CVPR 2020.

https://arxiv.org/abs/2003.05176, its softmax form.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedlt.losses.cross_entropy import cross_entropy

OUT = -1e4  # added to the logit of a class that is left out: its softmax is 0 in float32


def kept_in_softmax(labels: Tensor, rare: Tensor, ignored: Tensor) -> Tensor:
    """Return w = 1 - beta T(f) (1 - y), bool (B, C): which classes an image's softmax sums over.

    Args:
        labels: Classes (B,), int64.
        rare: bool (C,), T(f): the classes whose frequency is below the threshold.
        ignored: bool (B, C), beta: the draws.
    """
    classes = torch.arange(len(rare), device=labels.device)
    return ~(rare & ignored) | (classes == labels[:, None])


def equalisation(logits: Tensor, labels: Tensor, kept: Tensor) -> Tensor:
    """Return the mean of -log(e^z_y / sum of w_c e^z_c).

    Args:
        logits: Logits (B, S, C).
        labels: Classes (B,), int64.
        kept: bool (B, C): w, true for the label.

    Returns:
        A scalar.
    """
    return cross_entropy(torch.where(kept[:, None], logits, OUT), labels)
