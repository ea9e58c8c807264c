"""Digests (SHA-256 in hex) of arrays, and other texts about them that are kept with their file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlt.machine.digests import SMALL, remembered
from fedlt.machine.maps import MappedRows, map_place

WHOLE = 256 * 2**20  # bytes: an array in memory up to this size is read whole
BLOCKS, BLOCK = 1024, 64 * 2**10  # number and bytes of the blocks read from a larger array
_CHUNK = 8 * 2**20  # bytes that one thread digests at a time

Array = NDArray[Any] | MappedRows


def array_digest(array: Array) -> str:
    """Return the digest of an array's type, shape and values.

    An array up to :data:`WHOLE` bytes is read whole, and the rows of a memory map have the digest
    of the same rows in memory. A larger array in memory is divided into :data:`BLOCKS` equal parts,
    and one block of each part is read, at a place derived from type and shape; a change of single
    values between the blocks is not found. A larger memory map is read whole, once until its file
    changes; its digest is made of the digests of the whole mapped array and of the row numbers.
    """
    if not isinstance(array, MappedRows) and map_place(array) is not None:
        array = MappedRows(array)
    header = f"{array.dtype.str} {array.shape}"
    if isinstance(array, MappedRows):
        return _rows_digest(header, array)
    dense = np.ascontiguousarray(array)
    if dense.nbytes > WHOLE:
        return _joined(header, [_digest(part) for part in _blocks(header, dense)])
    return _streamed(header, dense)


def remembered_about(array: Array, what: str, make: Callable[[], str]) -> str:
    """Return ``make()``, a text about an array; of a large memory map until its file changes.

    Args:
        array: The array.
        what: The subject of the text, such as ``moments``.
        make: Makes the text from the array.
    """
    if not isinstance(array, MappedRows) and map_place(array) is not None:
        array = MappedRows(array)
    if not isinstance(array, MappedRows) or array.whole.nbytes <= SMALL:
        return make()
    whole, rows = array.whole, b"" if array.rows is None else _digest(array.rows.data)
    layout = f"{whole.dtype.str} {whole.shape} {whole.strides} at {array.offset} {rows.hex()}"
    return remembered(array.path, f"{what} of {layout}", make)


def _rows_digest(header: str, mapped: MappedRows) -> str:
    """Return the digest of a memory map's rows, of which a few chunks are in memory at a time."""
    if mapped.nbytes <= WHOLE:
        return remembered_about(mapped, "values", lambda: _streamed(header, mapped))
    base = MappedRows(mapped.whole)
    of_base = f"{base.dtype.str} {base.shape}"
    values = remembered_about(base, "values", lambda: _streamed(of_base, base))
    rows = b"" if mapped.rows is None else _digest(mapped.rows.data)
    return _joined(header, [values.encode(), rows])


def _streamed(header: str, array: Array) -> str:
    """Return the digest of the header and of the digests of all chunks of the values."""
    size = array.nbytes

    def part(start: int) -> bytes:
        return _digest(_read(array, start, min(start + _CHUNK, size)))

    starts = range(0, size, _CHUNK)
    if len(starts) < 2:
        return _joined(header, map(part, starts))
    with ThreadPoolExecutor(min(4, len(os.sched_getaffinity(0)))) as pool:
        return _joined(header, pool.map(part, starts))


def _read(array: Array, start: int, stop: int) -> memoryview:
    """Return the bytes from ``start`` to ``stop`` of an array's values in order."""
    if not isinstance(array, MappedRows):
        return _bytes_of(array)[start:stop]
    size = array.row_bytes
    first = start // size
    data = _bytes_of(np.ascontiguousarray(array[first : -(-stop // size)]))
    return data[start - first * size : stop - first * size]


def _bytes_of(dense: NDArray[np.generic]) -> memoryview:
    return dense.reshape(-1).view(np.uint8).data if dense.size else memoryview(b"")


def _digest(data: memoryview) -> bytes:
    return hashlib.sha256(data).digest()


def _joined(header: str, parts: Iterator[bytes] | list[bytes]) -> str:
    return hashlib.sha256(header.encode() + b"\n" + b"".join(parts)).hexdigest()


def _blocks(key: str, dense: NDArray[np.generic]) -> Iterator[memoryview]:
    """Yield the blocks of a large array, one per equal part, at places derived from ``key``."""
    data = _bytes_of(dense)
    share = len(data) // BLOCKS
    for number in range(BLOCKS):
        drawn = int.from_bytes(hashlib.sha256(f"{key} {number}".encode()).digest()[:8])
        start = number * share + drawn % max(1, share - BLOCK)
        yield data[start : start + BLOCK]
