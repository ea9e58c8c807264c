"""FedLC: Zhang et al., Federated learning with label distribution skew via logits calibration.

ICML 2022, https://arxiv.org/abs/2209.00189. The loss has a margin tau (n_y^-1/4 - n_c^-1/4) between
the true class y and class c. The rarer y is, the larger the margin.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedlt.losses.cross_entropy import cross_entropy

_ABSENT = -1e4  # offset of an absent class, the limit n -> 0: excluded from the softmax


def calibration(class_counts: Tensor, *, tau: float) -> Tensor:
    """Return the logit offset ``-tau * n^(-1/4)`` of every class (C,), and -1e4 where n is 0.

    Args:
        class_counts: The client's class counts n (C,).
        tau: At least 0.
    """
    margins = class_counts.clamp(min=1).float() ** -0.25
    return torch.where(class_counts > 0, -tau * margins, _ABSENT)


def fedlc(logits: Tensor, labels: Tensor, offsets: Tensor) -> Tensor:
    """Return the cross-entropy in nats of the calibrated logits, ``logits + offsets``.

    Args:
        logits: Logits (B, C) or (B, S, C).
        labels: Classes (B,), int64.
        offsets: (C,), from :func:`calibration`.

    Returns:
        A scalar, the mean over the streams and the batch.
    """
    return cross_entropy(logits + offsets, labels)
