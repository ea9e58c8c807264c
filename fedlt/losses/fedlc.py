"""FedLC: Zhang et al., Federated learning with label distribution skew via logits calibration.

ICML 2022, https://arxiv.org/abs/2209.00189. A pairwise margin tau (n_y^-1/4 - n_c^-1/4) between the
true class y and class c, larger for a rarer y.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedlt.losses.cross_entropy import cross_entropy

_ABSENT = -1e4  # the limit n -> 0: out of the softmax


def calibration(class_counts: Tensor, *, tau: float) -> Tensor:
    """Return ``-tau * n^(-1/4)`` for every class (C,), and -1e4 where n is 0.

    Args:
        class_counts: (C,) of the client itself.
        tau: At least 0.
    """
    margins = class_counts.clamp(min=1).float() ** -0.25
    return torch.where(class_counts > 0, -tau * margins, _ABSENT)


def fedlc(logits: Tensor, labels: Tensor, offsets: Tensor) -> Tensor:
    """Return the cross-entropy in nats of the calibrated logits.

    Args:
        logits: Logits (B, C) or (B, S, C).
        labels: Classes (B,), int64.
        offsets: (C,), what :func:`calibration` returns.

    Returns:
        A scalar, the mean over the streams and the batch.
    """
    return cross_entropy(logits + offsets, labels)
