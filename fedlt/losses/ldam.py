"""LDAM: Cao et al., Learning imbalanced datasets with label-distribution-aware margin loss.

NeurIPS 2019, https://arxiv.org/abs/1906.07413
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedlt.losses.cross_entropy import class_weighted_cross_entropy


def ldam_margins(class_counts: Tensor, *, max_margin: float) -> Tensor:
    """Return a margin proportional to ``n^(-1/4)`` for every class (C,) (equation 11).

    The rarest class that the client holds has ``max_margin``, and so has every absent one.

    Args:
        class_counts: (C,) of the client itself.
        max_margin: The largest margin, as a cosine.
    """
    held = class_counts > 0
    raw = class_counts.clamp(min=1).float() ** -0.25
    largest = torch.where(held, raw, 0.0).amax().clamp(min=1e-12)
    return max_margin * torch.where(held, raw / largest, 1.0)


def ldam(logits: Tensor, labels: Tensor, margins: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted cross-entropy after the true class lost its margin (equation 13).

    ``scale * (cos - margin) = logits - scale * margin`` for a cosine head, so that the margins are
    given in units of the logits.

    Args:
        logits: Logits ``scale * cos`` (B, C) or (B, S, C).
        labels: Classes (B,), int64.
        margins: (C,), times the scale of the head.
        weights: (C,) of the classes; ones before the re-weighting sets in.

    Returns:
        A scalar: over streams and batch the mean weighted by ``weights``, that is, the weighted sum
        over the sum of the weights in the batch, as in the authors' code.
    """
    classes = torch.arange(logits.shape[-1], device=logits.device)
    lost = (classes == labels[:, None]) * margins  # (B, C)
    if logits.ndim == 3:
        lost = lost[:, None]
    return class_weighted_cross_entropy(logits - lost, labels, weights, divide_by="weights")
