"""Bytes that are on disk when a call returns, and tensors as such bytes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
from torch import Tensor


def sha256(data: bytes) -> str:
    """Return the SHA-256 of ``data``, as hex."""
    return hashlib.sha256(data).hexdigest()


def write_synced(path: Path, data: bytes) -> None:
    """Write a file and wait until the disk has it."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Wait until the disk has a folder's names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def pack_tensors(tensors: Mapping[str, Tensor]) -> bytes:
    """Return tensors of any dtype, memory format or sharing as the bytes of a safetensors file."""
    dense: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, value in tensors.items():
        tensor = value.detach().cpu().contiguous()
        address = tensor.untyped_storage().data_ptr()
        dense[name] = tensor.clone() if address in seen else tensor
        seen.add(address)
    return safetensors.torch.save(dense)
