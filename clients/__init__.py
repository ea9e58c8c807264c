"""Client plugins: one local-training method per file. This table is the only registry."""

from __future__ import annotations

from clients.balanced_softmax import BalancedSoftmax
from clients.cross_entropy import CrossEntropy
from fedlt.client import ClientPlugin

__all__ = ["CLIENTS", "BalancedSoftmax", "CrossEntropy"]

CLIENTS: dict[str, type[ClientPlugin]] = {
    "balanced_softmax": BalancedSoftmax,
    "cross_entropy": CrossEntropy,
}
