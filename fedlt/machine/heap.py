"""Keep freed memory in the process, in which the next client task uses it again, or give it back.

glibc gives large freed blocks back to the kernel, which must clear and map every page of them once
more for the next task: for a model of 11 million parameters that costs more than all the copies.
"""

from __future__ import annotations

import ctypes
import gc

import torch

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
_KEEP = 2**30  # bytes: blocks up to this size come from the heap, which keeps as much at its end
_C = ctypes.CDLL(None)


def keep_freed_memory() -> None:
    """Set glibc's thresholds, for this process; nothing happens where malloc is not glibc's."""
    mallopt = getattr(_C, "mallopt", None)
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, _KEEP)
        mallopt(_MMAP_THRESHOLD, _KEEP)


def give_back_freed_memory() -> None:
    """Give what the process has freed back to the kernel, and to the GPU's other users."""
    gc.collect()
    trim = getattr(_C, "malloc_trim", None)
    if trim is not None:
        trim(0)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()
