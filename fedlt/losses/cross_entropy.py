"""Cross-entropy over one or several streams of logits."""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812
from torch import Tensor

__all__ = ["cross_entropy"]


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy in nats, averaged over the streams and the batch.

    Args:
        logits: Logits (B, C) or (B, S, C).
        labels: Classes (B,), int64.

    Returns:
        A scalar.
    """
    streams = logits.shape[1] if logits.ndim == 3 else 1
    rows = logits.reshape(-1, logits.shape[-1])  # (B * S, C)
    return F.cross_entropy(rows, labels.unsqueeze(1).expand(-1, streams).reshape(-1))
