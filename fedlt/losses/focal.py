"""Focal loss: Lin et al., Focal loss for dense object detection, ICCV 2017.

https://arxiv.org/abs/1708.02002
"""

from __future__ import annotations

from torch import Tensor

from fedlt.losses.cross_entropy import cross_entropy_rows

_TINY = 1e-12  # keeps the gradient finite where p is 1 and gamma below 1


def focal(logits: Tensor, labels: Tensor, *, gamma: float) -> Tensor:
    """Return the mean of ``-(1 - p)^gamma log p``, p the softmax of the true class (equation 4).

    With ``gamma`` 0 the gradient is that of cross-entropy, bit for bit.

    Args:
        logits: Logits (B, C) or (B, S, C).
        labels: Classes (B,), int64.
        gamma: At least 0.

    Returns:
        A scalar, the mean over the streams and the batch.
    """
    surprise = cross_entropy_rows(logits, labels)  # (B * S,): -log p
    wrong = -(-surprise).expm1()  # 1 - p, exact where p is near 1
    return (wrong.clamp(min=_TINY) ** gamma * surprise).mean()
