"""LDAM: Cao et al., Learning imbalanced datasets with label-distribution-aware margin loss.

NeurIPS 2019, https://arxiv.org/abs/1906.07413
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedlt.losses.cross_entropy import class_weighted_cross_entropy


def ldam_margins(class_counts: Tensor, *, max_margin: float) -> Tensor:
    """Return a margin proportional to ``n^(-1/4)`` for every class (C,) (equation 11).

    The client's rarest class and every absent class have ``max_margin``.

    Args:
        class_counts: The client's class counts n (C,).
        max_margin: The largest margin, as a cosine.
    """
    held = class_counts > 0
    raw = class_counts.clamp(min=1).float() ** -0.25
    largest = torch.where(held, raw, 0.0).amax().clamp(min=1e-12)
    return max_margin * torch.where(held, raw / largest, 1.0)


def ldam(logits: Tensor, labels: Tensor, margins: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted cross-entropy of logits minus the true class's margin (equation 13).

    A cosine head has ``scale * (cos - margin) = logits - scale * margin``, so this function takes
    margins in units of the logits.

    Args:
        logits: Logits ``scale * cos`` (B, C) or (B, S, C).
        labels: Classes (B,), int64.
        margins: (C,), already multiplied by the scale of the head.
        weights: Class weights (C,); ones until the re-weighting begins.

    Returns:
        A scalar, the weighted mean over the streams and the batch: the weighted sum divided by the
        sum of the weights in the batch, as in the authors' code.
    """
    classes = torch.arange(logits.shape[-1], device=logits.device)
    lost = (classes == labels[:, None]) * margins  # (B, C)
    if logits.ndim == 3:
        lost = lost[:, None]
    return class_weighted_cross_entropy(logits - lost, labels, weights, divide_by="weights")
