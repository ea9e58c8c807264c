"""Equalisation loss: Tan et al., Equalization loss for long-tailed object recognition, CVPR 2020.

https://arxiv.org/abs/2003.05176. This file has the softmax form of the loss.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedlt.losses.cross_entropy import cross_entropy

OUT = -1e4  # logit of an excluded class: its softmax is 0 in float32


def kept_in_softmax(labels: Tensor, rare: Tensor, ignored: Tensor) -> Tensor:
    """Return the mask of classes in each image's softmax, w = 1 - beta T(f) (1 - y), bool (B, C).

    Args:
        labels: Classes (B,), int64.
        rare: T(f), bool (C,): True for classes whose frequency is below the threshold.
        ignored: beta, bool (B, C): True where the random draw excludes a rare class.
    """
    classes = torch.arange(len(rare), device=labels.device)
    return ~(rare & ignored) | (classes == labels[:, None])


def equalisation(logits: Tensor, labels: Tensor, kept: Tensor) -> Tensor:
    """Return the mean of -log(e^z_y / sum of w_c e^z_c) over streams and batch, z the logits.

    Args:
        logits: Logits (B, S, C).
        labels: Classes (B,), int64.
        kept: w, bool (B, C); must be True for the image's label.

    Returns:
        A scalar.
    """
    return cross_entropy(torch.where(kept[:, None], logits, OUT), labels)
