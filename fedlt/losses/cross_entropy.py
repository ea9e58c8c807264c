"""Cross-entropy over one or several streams of logits, plain or with a weight for each class."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch.nn.functional as F  # noqa: N812
from torch import Tensor

__all__ = [
    "class_weighted_cross_entropy",
    "cross_entropy",
    "cross_entropy_rows",
    "entropy",
    "under_vmap",
]

_UNDER_VMAP: ContextVar[bool] = ContextVar("_UNDER_VMAP", default=False)


@contextmanager
def under_vmap() -> Iterator[None]:
    """Compute :func:`cross_entropy` by operations that ``vmap`` has batching rules for.

    PyTorch's own cross-entropy has none, and is then taken apart in Python, a tenth of a tiny
    model's step. The gradient has the same bits either way, the loss may differ in the last.
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


def class_weighted_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Return the mean of ``weights[label]`` times the cross-entropy.

    It is divided by the number of rows, not by the sum of their weights: the mean over many batches
    is then that over the data. With weights of 1 it is :func:`cross_entropy`, bit for bit.

    Args:
        logits: Logits (B, C) or (B, S, C).
        labels: Classes (B,), int64.
        weights: (C,), at least 0.

    Returns:
        A scalar.
    """
    rows, targets = _rows(logits, labels)
    return F.cross_entropy(rows, targets, weight=weights, reduction="sum") / len(targets)


def cross_entropy_rows(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of every image and stream, (B * S,)."""
    return F.cross_entropy(*_rows(logits, labels), reduction="none")


def entropy(logits: Tensor) -> Tensor:
    """Return the entropy in nats of the softmax, a scalar: the mean over streams and batch."""
    log_p = logits.log_softmax(dim=-1)
    return -(log_p.exp() * log_p).sum(dim=-1).mean()


def _rows(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits (B * S, C) and the classes of the same rows."""
    streams = logits.shape[1] if logits.ndim == 3 else 1
    rows = logits.reshape(-1, logits.shape[-1])  # (B * S, C)
    return rows, labels.unsqueeze(1).expand(-1, streams).reshape(-1)
