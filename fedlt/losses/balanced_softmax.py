"""Balanced softmax: Ren et al., NeurIPS 2020, https://arxiv.org/abs/2007.10740.

The loss trains logits whose plain softmax is right under a balanced class mix. During training the
log prior is added to the logits (equation 3); at test time the logits are used alone.
"""

from __future__ import annotations

from torch import Tensor

from fedlt.losses.cross_entropy import cross_entropy


def balanced_softmax(logits: Tensor, labels: Tensor, log_prior: Tensor) -> Tensor:
    """Return the cross-entropy in nats of ``logits + log_prior``.

    Adding a constant to ``log_prior`` changes nothing, so log counts serve as well as log
    frequencies. With equal counts the loss is plain cross-entropy.

    Args:
        logits: Logits (B, C) or (B, S, C).
        labels: Classes (B,), int64.
        log_prior: Logarithm of the class prior (C,), finite for every class among the labels; for
            a class without training images give a large negative number.

    Returns:
        A scalar, the mean over the streams and the batch.
    """
    return cross_entropy(logits + log_prior, labels)
