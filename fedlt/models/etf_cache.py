"""A disk cache for tensors that are a pure function of a few numbers.

Files lie in ``$FEDLT_CACHE`` or ``~/.cache/fedlt``. The cache is only ever a saving of time: what
cannot be read is made again, and what cannot be written is not kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from fedlt.machine.cache import cache_directory

VERSION: Final = 1  # raise it when a cached recipe changes
_KEY: Final = "value"


def cached_tensor(
    kind: str,
    inputs: Mapping[str, float],
    shape: tuple[int, ...],
    make: Callable[[], Tensor],
) -> Tensor:
    """Return ``make()``, or what it returned for the same inputs before.

    Args:
        kind: What is made; begins the file's name.
        inputs: Every number the result depends on. The library's version and the machine type
            are added, as they may change its last bits.
        shape: Shape of the result; a float32 tensor.
        make: Makes it.
    """
    machine = [VERSION, torch.__version__, platform.machine()]
    text = json.dumps([kind, dict(inputs), *machine], sort_keys=True)
    digest = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    try:
        path = cache_directory() / f"{kind}-{digest}.safetensors"
    except RuntimeError:  # this user has no home directory
        return make()
    found = _read(path, shape)
    if found is not None:
        return found
    value = make().contiguous()
    with suppress(OSError):
        _write(path, value)
    return value


def _read(path: Path, shape: tuple[int, ...]) -> Tensor | None:
    try:
        value = load(path.read_bytes())[_KEY]
    except (OSError, SafetensorError, KeyError):
        return None
    fits = value.shape == shape and value.dtype == torch.float32 and bool(value.isfinite().all())
    return value if fits else None


def _write(path: Path, value: Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(save({_KEY: value}))
        Path(name).replace(path)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise
