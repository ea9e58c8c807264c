"""Digests of files and arrays, as SHA-256 in hex; those of large files are remembered.

A digest is remembered in the user's cache by path, size, times and inode, so that a file is read
again only when it may have changed. A file that changed a moment ago is never remembered: a second
change within one tick of the clock would leave the same times.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedlt.machine.cache import cache_directory

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

UNREADABLE = "unreadable"  # stands for the digest of a file that cannot be read
WHOLE = 256 * 2**20  # bytes of an array that are read to the last one
BLOCKS, BLOCK = 1024, 64 * 2**10  # of a larger array: so many blocks of so many bytes
_SMALL = 2**20  # bytes of a file that is quicker to read than to look up
_SETTLED = 2.0  # seconds since the last change of a file that is remembered
_CHUNK = 8 * 2**20  # bytes that one thread digests at a time


def file_digest(path: Path) -> str:
    """Return the digest of a file's bytes, or :data:`UNREADABLE`; that of a device, too."""
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
    """Return the digest of an array's type, shape and values, of any shape.

    Up to :data:`WHOLE` bytes all values count. Of a larger array :data:`BLOCKS` blocks count, one
    drawn from each of as many equal parts by a key that the type and the shape make, and of a
    memory map the time of its file's last change, too. A change of single values between the
    blocks is not seen then, unless the file's time tells.
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
    """Yield the blocks of a large array: one at a keyed place in each of as many equal parts."""
    data = _bytes_of(dense)
    share = len(data) // BLOCKS
    for number in range(BLOCKS):
        drawn = int.from_bytes(hashlib.sha256(f"{key} {number}".encode()).digest()[:8])
        start = number * share + drawn % max(1, share - BLOCK)
        yield data[start : start + BLOCK]


def _mapped_file(array: Any) -> tuple[Path, int] | None:  # noqa: ANN401 (an array or its base)
    """Return the file that an array is a map of, and where in it the array begins."""
    import numpy as np

    base: Any = array
    while base is not None:
        if isinstance(base, np.memmap) and base.filename is not None:
            offset = array.ctypes.data - base.ctypes.data + base.offset
            return Path(base.filename), offset
        base = getattr(base, "base", None)
    return None


def _remembered(path: Path, what: str, make: Callable[[], str]) -> str:
    """Return ``make()``, or what it returned when the file was as it is now."""
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
            _write(place, json.dumps({"stamp": stamp, "digest": digest}))
    return digest


def _stamp(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev]


def _write(place: Path, text: str) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=place.parent, suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).replace(place)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise
