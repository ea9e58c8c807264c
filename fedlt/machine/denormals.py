"""Denormal floats: a CPU computes them in microcode, and results depend on whether it does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def flushes_denormals() -> bool:
    """Say whether this thread replaces denormal results by zero; torch itself does not tell."""
    halved = torch.tensor([1e-40]).mul_(0.5)  # the smallest normal float32 is 1.2e-38
    return not bool(halved.view(torch.int32).any())


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Compute as a run does, with denormals flushed to zero, and give the mode back."""
    before = flushes_denormals()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)
