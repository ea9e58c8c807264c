"""Denormal floats: slow on a CPU unless flushed to zero; flushing changes the last bits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def flushes_denormals() -> bool:
    """Whether this thread flushes denormal results to zero, found by a trial computation."""
    halved = torch.tensor([1e-40]).mul_(0.5)  # the smallest normal float32 is 1.2e-38
    return not bool(halved.view(torch.int32).any())


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Flush denormals to zero inside the block, as a run does; afterwards restore the mode."""
    before = flushes_denormals()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)
