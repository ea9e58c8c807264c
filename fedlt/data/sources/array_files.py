"""Arrays in an ``.npz`` file or in a folder of ``.npy`` files, memory-mapped where possible.

An ``.npz`` file is a zip archive. A member that is stored without compression lies in the file as
it would lie in memory, so it can be mapped at its offset.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from fedlt.errors import FedltError, one_line

_CHUNK = 4 << 20  # bytes read at a time
_HEADER = 30  # bytes of a zip member's header before its name


@dataclass(frozen=True)
class ArrayMember:
    """Array in a file, described by its header and not read yet."""

    where: str  # file and key, for messages
    path: Path  # file that holds the array
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    mapped: NDArray[Any] | None  # the array in the file; None: it is packed, or in Fortran's order
    archived: str = ""  # name in the zip archive; "": not in an archive

    def chunks(self) -> Iterator[NDArray[Any]]:
        """Yield the array in order, some rows at a time.

        Raises:
            FedltError: If the file is damaged.
        """
        rows = max(1, _CHUNK // max(1, self.row_bytes))
        if self.mapped is not None:
            for start in range(0, self.shape[0], rows):
                yield self.mapped[start : start + rows]
            return
        with _reading(self.where), zipfile.ZipFile(self.path) as archive:
            with archive.open(self.archived) as file:
                _, in_fortran, _ = _read_header(file)
                for start in () if in_fortran else range(0, self.shape[0], rows):
                    count = min(rows, self.shape[0] - start)
                    data = file.read(count * self.row_bytes)
                    yield np.frombuffer(data, self.dtype).reshape(count, *self.shape[1:])
            if in_fortran:
                with archive.open(self.archived) as file:
                    yield np.lib.format.read_array(file, allow_pickle=False)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize

    def read(self) -> NDArray[Any]:
        """Return the whole array in memory."""
        parts = list(self.chunks())
        return np.concatenate(parts) if parts else np.empty(self.shape, self.dtype)


class _reading:  # noqa: N801 (used as a context manager)
    """Turn errors of a damaged file into one line that names it."""

    def __init__(self, where: str) -> None:
        self._where = where

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        known = (OSError, ValueError, zipfile.BadZipFile, EOFError, struct.error)
        if isinstance(error, known) and not isinstance(error, FedltError):
            raise FedltError(f"{self._where}: cannot be read: {one_line(error)}") from error


def open_arrays(path: Path) -> dict[str, ArrayMember]:
    """Return the arrays of an ``.npz`` file or of a folder of ``.npy`` files, by key.

    Raises:
        FedltError: If the file is damaged or holds Python objects.
    """
    with _reading(str(path)):
        if path.is_dir():
            files = sorted(path.glob("*.npy"))
            return {file.stem: _open_file(file) for file in files}
        with zipfile.ZipFile(path) as archive:
            members = [one for one in archive.infolist() if one.filename.endswith(".npy")]
            return {
                one.filename.removesuffix(".npy"): _open_member(path, archive, one)
                for one in members
            }


def _open_file(file: Path) -> ArrayMember:
    with _reading(str(file)), file.open("rb") as opened:
        shape, in_fortran, dtype = _read_header(opened)
        _check(str(file), shape, dtype)
        mapped = np.load(file, mmap_mode="r" if np.prod(shape) else None, allow_pickle=False)
    ordered = np.ascontiguousarray(mapped) if in_fortran else mapped
    return ArrayMember(str(file), file, shape, dtype, ordered)


def _open_member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> ArrayMember:
    where = f"{path}, {info.filename.removesuffix('.npy')}"
    with _reading(where), archive.open(info) as file:
        shape, in_fortran, dtype = _read_header(file)
        _check(where, shape, dtype)
        head = file.tell()
    mapped = None
    if info.compress_type == zipfile.ZIP_STORED and not in_fortran and np.prod(shape):
        offset = _data_offset(path, info) + head
        mapped = np.memmap(path, dtype, "r", offset, shape)
    return ArrayMember(where, path, shape, dtype, mapped, info.filename)


def _data_offset(path: Path, info: zipfile.ZipInfo) -> int:
    """Return the place in the file at which a member's bytes begin."""
    with path.open("rb") as file:
        file.seek(info.header_offset)
        name, extra = struct.unpack("<26x2H", file.read(_HEADER))
    return info.header_offset + _HEADER + int(name) + int(extra)


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return shape, whether Fortran's order, and type; the file then stands at the first value."""
    version = np.lib.format.read_magic(file)
    reader = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if reader is None:
        raise ValueError(f"version {version} of the npy format is not read")
    return reader(file)


def _check(where: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if dtype.hasobject:
        raise FedltError(f"{where}: holds Python objects; save it as numbers or text (dtype 'U')")
    if not shape:
        raise FedltError(f"{where}: is a single value, not an array")
