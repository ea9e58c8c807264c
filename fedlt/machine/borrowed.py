"""State of the process that a run changes, given back afterwards: notebooks go on working."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from fedlt.machine.denormals import flushes_denormals


@contextmanager
def borrowed_process() -> Iterator[None]:
    """Restore torch's threads, denormal mode and global generator at the end of the block.

    A run sets one thread and flushes denormals (``fedlt.worker.worker.prepare_process``), and seeds
    the global generator before a client's task.
    """
    threads, flushes, state = torch.get_num_threads(), flushes_denormals(), torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(flushes)
        torch.set_rng_state(state)
