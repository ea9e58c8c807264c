"""Logit adjustment: Menon et al., Long-tail learning via logit adjustment, ICLR 2021.

https://arxiv.org/abs/2007.07314. With tau 1, the logits that minimise this loss are optimal under a
balanced class mix when used alone (section 4.2).
"""

from __future__ import annotations

from torch import Tensor

from fedlt.losses.cross_entropy import cross_entropy


def logit_adjusted(logits: Tensor, labels: Tensor, log_prior: Tensor, *, tau: float) -> Tensor:
    """Return the cross-entropy in nats of ``logits + tau * log_prior`` (equation 10).

    The loss is balanced softmax for ``tau`` 1 and cross-entropy for 0, bit for bit.

    Args:
        logits: Logits (B, C) or (B, S, C).
        labels: Classes (B,), int64.
        log_prior: Logarithm of the class prior (C,), up to a constant; a class without training
            images has a large negative number.
        tau: At least 0.

    Returns:
        A scalar, the mean over the streams and the batch.
    """
    return cross_entropy(logits + tau * log_prior, labels)
