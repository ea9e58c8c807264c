"""Cross-entropy over one or several streams of logits, plain or with a weight per class."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, Literal

import torch.nn.functional as F  # noqa: N812
from torch import Tensor

Divisor = Literal["images", "weights"]  # divisor of a batch's sum of weighted losses
TINY: Final = 1e-12  # the smallest sum of weights that a loss is divided by

_UNDER_VMAP: ContextVar[bool] = ContextVar("_UNDER_VMAP", default=False)


@contextmanager
def under_vmap() -> Iterator[None]:
    """Inside the block, compute :func:`cross_entropy` from operations with batching rules.

    PyTorch's own cross-entropy has no rule for ``vmap``, which then decomposes the operation in
    Python: a tenth of a tiny model's step. Gradients have the same bits either way; the last bit
    of the loss may differ.
    """
    token = _UNDER_VMAP.set(True)
    try:
        yield
    finally:
        _UNDER_VMAP.reset(token)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy in nats, averaged over the streams and the batch.

    Args:
        logits: Logits (B, C) or (B, S, C).
        labels: Classes (B,), int64.

    Returns:
        A scalar.
    """
    rows, targets = _rows(logits, labels)
    if _UNDER_VMAP.get():
        return -rows.log_softmax(dim=-1).gather(1, targets.unsqueeze(1)).mean()
    return F.cross_entropy(rows, targets)


def class_weighted_cross_entropy(
    logits: Tensor, labels: Tensor, weights: Tensor, *, divide_by: Divisor
) -> Tensor:
    """Return the batch's sum of ``weights[label]`` times cross-entropy, divided by ``divide_by``.

    If all weights are 1, the result is that of :func:`cross_entropy`, bit for bit.

    Args:
        logits: Logits (B, C) or (B, S, C).
        labels: Classes (B,), int64.
        weights: (C,), at least 0.
        divide_by: ``images``: divide by the number of rows B * S; a batch of frequent classes then
            takes a small step. ``weights``: divide by the sum of the rows' weights; every batch
            then takes a step of the usual size. If all weights in a batch are 0, the loss is 0.

    Returns:
        A scalar.
    """
    rows, targets = _rows(logits, labels)
    total = F.cross_entropy(rows, targets, weight=weights, reduction="sum")
    if divide_by == "images":
        return total / len(targets)
    return total / weights[targets].sum().clamp(min=TINY)


def cross_entropy_rows(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of every image and stream, (B * S,)."""
    return F.cross_entropy(*_rows(logits, labels), reduction="none")


def entropy(logits: Tensor) -> Tensor:
    """Return the softmax's entropy in nats, a scalar: the mean over the streams and the batch."""
    log_p = logits.log_softmax(dim=-1)
    return -(log_p.exp() * log_p).sum(dim=-1).mean()


def _rows(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits as rows (B * S, C), and the class of each row (B * S,)."""
    streams = logits.shape[1] if logits.ndim == 3 else 1
    rows = logits.reshape(-1, logits.shape[-1])  # (B * S, C)
    return rows, labels.unsqueeze(1).expand(-1, streams).reshape(-1)
