"""Digests (SHA-256 in hex) of files and arrays; digests of large files are cached.

A digest lies in the user's cache under the file's path, size, times and inode, so a file is read
again only if it may have changed. The digest of a file that changed a moment ago is not cached: a
second change within one tick of the clock would leave the same times.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedlt.machine.cache import cache_directory
from fedlt.machine.durable import replacing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

UNREADABLE = "unreadable"  # stands for the digest of a file that cannot be read
WHOLE = 256 * 2**20  # bytes: an array up to this size is read whole
BLOCKS, BLOCK = 1024, 64 * 2**10  # number and bytes of the blocks read from a larger array
_SMALL = 2**20  # bytes: a file up to this size is quicker to read than to look up
_SETTLED = 2.0  # seconds since its last change after which a file's digest is cached
_CHUNK = 8 * 2**20  # bytes that one thread digests at a time


def file_digest(path: Path) -> str:
    """Return the digest of a file's bytes, or :data:`UNREADABLE`, also for a pipe or a device."""
    try:
        if not path.is_file():  # a device may never end
            return UNREADABLE
        if path.stat().st_size <= _SMALL:
            return hashlib.sha256(path.read_bytes()).hexdigest()
        return _remembered(path, "file", lambda: _read_digest(path))
    except OSError:
        return UNREADABLE


def _read_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def path_digest(path: Path) -> str:
    """Return the digest of a file, or of the names and bytes of every file in a folder."""
    if not path.is_dir():
        return file_digest(path)
    try:
        files = sorted(file for file in path.rglob("*") if file.is_file())
    except OSError:
        return UNREADABLE
    text = "".join(f"{file.relative_to(path)} {file_digest(file)}\n" for file in files)
    return hashlib.sha256(text.encode()).hexdigest()


def array_digest(array: NDArray[np.generic]) -> str:
    """Return the digest of an array's type, shape and values.

    An array up to :data:`WHOLE` bytes is read whole. A larger array is divided into :data:`BLOCKS`
    equal parts, and one block of each part is read, at a place derived from type and shape. For a
    large memory map, the time of the file's last change counts too. A change of single values
    between the blocks is then found only by the file's time.
    """
    import numpy as np

    header = f"{array.dtype.str} {array.shape}"
    dense = np.ascontiguousarray(array)
    mapped = _mapped_file(array) if dense.ctypes.data == array.ctypes.data else None
    if dense.nbytes > WHOLE:
        stamp = "" if mapped is None else f" {mapped[0].stat().st_mtime_ns}"
        return _joined(header + stamp, [_digest(part) for part in _blocks(header, dense)])
    if mapped is None or dense.nbytes <= _SMALL:
        return _whole(header, dense)
    path, offset = mapped
    return _remembered(path, f"{header} at {offset}", lambda: _whole(header, dense))


def _bytes_of(dense: NDArray[np.generic]) -> memoryview:
    import numpy as np

    return dense.reshape(-1).view(np.uint8).data if dense.size else memoryview(b"")


def _whole(header: str, dense: NDArray[np.generic]) -> str:
    data = _bytes_of(dense)
    parts = [data[start : start + _CHUNK] for start in range(0, len(data), _CHUNK)]
    if len(parts) < 2:
        return _joined(header, map(_digest, parts))
    with ThreadPoolExecutor(min(4, len(os.sched_getaffinity(0)))) as pool:
        return _joined(header, list(pool.map(_digest, parts)))


def _digest(data: memoryview) -> bytes:
    return hashlib.sha256(data).digest()


def _joined(header: str, parts: Any) -> str:  # noqa: ANN401 (an iterable of bytes)
    return hashlib.sha256(header.encode() + b"\n" + b"".join(parts)).hexdigest()


def _blocks(key: str, dense: NDArray[np.generic]) -> Iterator[memoryview]:
    """Yield the blocks of a large array, one per equal part, at places derived from ``key``."""
    data = _bytes_of(dense)
    share = len(data) // BLOCKS
    for number in range(BLOCKS):
        drawn = int.from_bytes(hashlib.sha256(f"{key} {number}".encode()).digest()[:8])
        start = number * share + drawn % max(1, share - BLOCK)
        yield data[start : start + BLOCK]


def _mapped_file(array: Any) -> tuple[Path, int] | None:  # noqa: ANN401 (an array or its base)
    """Return the file that an array is mapped from and the array's offset in it, else None."""
    import numpy as np

    base: Any = array
    while base is not None:
        if isinstance(base, np.memmap) and base.filename is not None:
            offset = array.ctypes.data - base.ctypes.data + base.offset
            return Path(base.filename), offset
        base = getattr(base, "base", None)
    return None


def _remembered(path: Path, what: str, make: Callable[[], str]) -> str:
    """Return ``make()``, or its cached result if the file has not changed since."""
    stamp = _stamp(path)
    try:
        key = hashlib.sha256(f"{path.absolute()}\n{what}".encode()).hexdigest()[:32]
        place = cache_directory() / "digests" / f"{key}.json"
    except RuntimeError:  # this user has no home directory
        return make()
    with suppress(OSError, ValueError, LookupError, TypeError):
        known = json.loads(place.read_text(encoding="utf-8"))
        if known["stamp"] == stamp and isinstance(known["digest"], str):
            return str(known["digest"])
    digest = make()
    if stamp == _stamp(path) and time.time() - max(stamp[1:3]) / 1e9 > _SETTLED:
        with suppress(OSError):
            place.parent.mkdir(parents=True, exist_ok=True)
            with replacing(place) as file:
                file.write(json.dumps({"stamp": stamp, "digest": digest}).encode())
    return digest


def _stamp(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev]
