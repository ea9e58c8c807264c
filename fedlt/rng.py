"""Randomness: every draw has a key (seed, purpose, round, client, ...).

A key is hashed with BLAKE2b, so its hash is the same in every process and on every machine.
(Python's own ``hash`` differs between processes.) Different keys give independent random numbers.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor


def key(seed: int, purpose: str, *parts: int) -> int:
    """Return a stable 63-bit integer for ``(seed, purpose, *parts)``.

    Args:
        seed: The run's seed.
        purpose: Purpose of the draw, such as ``"cohort"`` or ``"batches"``.
        parts: Further integers, usually the round and the client id.
    """
    text = "/".join([str(seed), purpose, *map(str, parts)])
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def uniform(seed: int, purpose: str, *parts: int) -> float:
    """Return one number from the open interval (0, 1) for the key ``(seed, purpose, *parts)``."""
    return ((key(seed, purpose, *parts) >> 11) + 0.5) / 2**52


def numpy_generator(seed: int, purpose: str, *parts: int) -> np.random.Generator:
    """Return a NumPy generator for the key ``(seed, purpose, *parts)``."""
    return np.random.default_rng(key(seed, purpose, *parts))


def torch_generator(seed: int, purpose: str, *parts: int) -> torch.Generator:
    """Return a CPU torch generator for the key ``(seed, purpose, *parts)``."""
    return torch.Generator().manual_seed(key(seed, purpose, *parts))


def seed_torch(seed: int, purpose: str, *parts: int) -> None:
    """Seed torch's global generators, for code (initialisers, dropout) that takes no generator."""
    value = key(seed, purpose, *parts)
    torch.default_generator.manual_seed(value)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # manual_seed is slow without one
        torch.cuda.manual_seed_all(value)


def torch_state() -> list[Tensor]:
    """Return the states of torch's global CPU generator, then of the GPUs' if GPUs are in use."""
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    return [torch.get_rng_state(), *gpus]


def set_torch_state(state: list[Tensor]) -> None:
    """Restore a state that :func:`torch_state` returned."""
    torch.set_rng_state(state[0])
    if state[1:]:
        torch.cuda.set_rng_state_all(state[1:])
