"""A disk cache for tensors that are a pure function of a few numbers.

Files lie in ``$FEDLT_CACHE`` or ``~/.cache/fedlt``. The cache only saves time: a file that cannot
be read is computed again, and a failed write is ignored.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from fedlt.machine.cache import cache_directory
from fedlt.machine.durable import replacing

VERSION: Final = 1  # raise it when a cached recipe changes
_KEY: Final = "value"


def cached_tensor(
    kind: str,
    inputs: Mapping[str, float],
    shape: tuple[int, ...],
    make: Callable[[], Tensor],
) -> Tensor:
    """Return ``make()``, or its earlier result for the same inputs from the disk cache.

    Args:
        kind: Kind of tensor; the cache file's name begins with this word.
        inputs: Every number that the result depends on. Torch's version and the machine type
            are added, since both may change the last bits.
        shape: Shape of the result, a float32 tensor.
        make: Function that computes the tensor.
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
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(save({_KEY: value}))
    return value


def _read(path: Path, shape: tuple[int, ...]) -> Tensor | None:
    try:
        value = load(path.read_bytes())[_KEY]
    except (OSError, SafetensorError, KeyError):
        return None
    fits = value.shape == shape and value.dtype == torch.float32 and bool(value.isfinite().all())
    return value if fits else None
