"""Cross-entropy over one or several streams of logits, plain or with a weight for each class."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, Literal

import torch.nn.functional as F  # noqa: N812
from torch import Tensor

Divisor = Literal["images", "weights"]  # of a sum over a batch of weighted losses
TINY: Final = 1e-12  # the least sum of weights that a loss is divided by

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


def class_weighted_cross_entropy(
    logits: Tensor, labels: Tensor, weights: Tensor, *, divide_by: Divisor
) -> Tensor:
    """Return the sum of ``weights[label]`` times the cross-entropy, divided as the method has it.

    With weights of 1 the result is that of :func:`cross_entropy`, bit for bit, either way.

    Args:
        logits: Logits (B, C) or (B, S, C).
        labels: Classes (B,), int64.
        weights: (C,), at least 0.
        divide_by: ``images``: the number of rows B * S; a batch of frequent classes then makes a
            small step. ``weights``: the sum of the rows' weights; the step has the size of a plain
            one in every batch. Rows that all have weight 0 give 0.

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
    """Return the entropy in nats of the softmax, a scalar: the mean over streams and batch."""
    log_p = logits.log_softmax(dim=-1)
    return -(log_p.exp() * log_p).sum(dim=-1).mean()


def _rows(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits (B * S, C) and the classes of the same rows."""
    streams = logits.shape[1] if logits.ndim == 3 else 1
    rows = logits.reshape(-1, logits.shape[-1])  # (B * S, C)
    return rows, labels.unsqueeze(1).expand(-1, streams).reshape(-1)
