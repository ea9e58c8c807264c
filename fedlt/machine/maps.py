"""Arrays in memory-mapped files, of which only the rows in use are read.

A map's pages lie in the page cache of the machine: all processes share them, and no process copies
them into memory of its own. Between processes a map travels as the place of its file.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedlt.errors import FedltError
from fedlt.machine.memory import as_tensor

Stamp = tuple[int, int]  # size in bytes, and time of the last change in nanoseconds


def map_place(array: object) -> tuple[Path, int] | None:
    """Return the file that an array is mapped from and the array's offset in it, else None.

    A copy-on-write map counts as an array in memory, since its values may differ from the file's.
    """
    base, found = array, None
    while base is not None:  # the last map of the chain is the one that knows its own offset
        if isinstance(base, np.memmap) and base.filename is not None and base.mode != "c":
            found = base
        base = getattr(base, "base", None)
    if found is None:
        return None
    first: Any = array
    return Path(str(found.filename)), first.ctypes.data - found.ctypes.data + found.offset


class MappedRows:
    """Rows of a mapped array (P, ...), read when asked for: ``mapped[3]``, ``mapped[[0, 5]]``.

    ``np.asarray(mapped)`` reads all rows into memory. A pickle holds the place of the file and no
    values; unpickling opens the file.

    Args:
        whole: (P, ...), an array or a view of an array that is mapped from a file.
        rows: (N,), the rows of ``whole`` in their order; None: all rows.

    Raises:
        ValueError: If ``whole`` is not mapped from a file.
    """

    def __init__(self, whole: NDArray[Any], rows: NDArray[np.int64] | None = None) -> None:
        place = map_place(whole)
        if place is None:
            raise ValueError("the array is not mapped from a file")
        self.whole = whole.view(np.ndarray)
        self.whole.flags.writeable = False
        self.rows = rows
        self.path, self.offset = place
        self.stamp = stamp_of(self.path)

    def __reduce__(self) -> tuple[Any, ...]:
        whole = self.whole
        layout = (whole.dtype.str, whole.shape, whole.strides)
        return open_rows, (str(self.path.absolute()), self.offset, layout, self.stamp, self.rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape (N, ...)."""
        return (len(self), *self.whole.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the entries."""
        found: np.dtype[Any] = self.whole.dtype
        return found

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.whole.ndim

    @property
    def nbytes(self) -> int:
        """Bytes of the N rows."""
        return len(self) * self.row_bytes

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return int(np.prod(self.whole.shape[1:])) * self.whole.itemsize

    def __len__(self) -> int:
        return len(self.whole) if self.rows is None else len(self.rows)

    def __getitem__(self, key: Any) -> NDArray[Any]:  # noqa: ANN401 (whatever NumPy takes)
        found: NDArray[Any] = self.whole[key if self.rows is None else self.rows[key]]
        return found

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return (self[row] for row in range(len(self)))

    def __array__(
        self, dtype: np.dtype[Any] | None = None, copy: bool | None = None
    ) -> NDArray[Any]:
        if copy is False:
            raise ValueError("the rows of a map become an array only by a copy")
        return np.array(self[:], dtype=dtype)


@dataclass(frozen=True)
class LostRows:
    """Rows of a file that this machine lacks, or of which it has another version."""

    reason: str  # one line


def stamp_of(path: Path) -> Stamp:
    """Return the stamp of a file, which changes when the file is written."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def open_rows(
    path: str,
    offset: int,
    layout: tuple[str, tuple[int, ...], tuple[int, ...]],
    stamp: Stamp,
    rows: NDArray[np.int64] | None,
) -> MappedRows | LostRows:
    """Return the rows of a pickled :class:`MappedRows`, from the same file.

    A file that cannot be used gives :class:`LostRows`, since a message with rows must arrive.

    Args:
        path: The file.
        offset: Byte of the file at which the first entry lies.
        layout: Type, shape and strides of the whole array.
        stamp: Stamp of the file when the rows were pickled.
        rows: The rows, or None.
    """
    where = f"data: {path} on {socket.gethostname()}"
    try:
        found = stamp_of(Path(path))
        whole = np.memmap(path, np.uint8, mode="r")
    except (OSError, ValueError) as error:
        return LostRows(
            f"{where} cannot be read ({error}); every node of the cluster needs the files of the "
            "data under the same paths, such as on a shared file system"
        )
    if found != stamp:
        return LostRows(
            f"{where} has other bytes or another time of its last change than on the machine of "
            "the run; share one file, or copy it with its times (cp -p, rsync -t)"
        )
    kind, shape, strides = layout
    view: NDArray[Any] = np.ndarray(shape, kind, buffer=whole, offset=offset, strides=strides)
    return MappedRows(view, rows)


class MappedTensor:
    """Mapped images in the manner of a tensor (N, Ch, H, W): rows are read when asked for.

    ``images[rows]`` and ``images.index_select(0, rows)`` return tensors on ``device``. Arithmetic
    on all images at once is not offered.
    """

    def __init__(self, images: MappedRows, device: torch.device) -> None:
        self.source, self.device = images, device
        self.shape = torch.Size(images.shape)
        whole = images.whole
        self._whole = as_tensor(whole) if min(whole.strides) >= 0 else None
        self._rows = None if images.rows is None else as_tensor(images.rows)
        self.dtype = as_tensor(np.empty(0, images.dtype)).dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all images."""
        return self.source.nbytes

    def __len__(self) -> int:
        return self.shape[0]

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """Return the images at positions ``index`` (B,); ``dim`` must be 0.

        Raises:
            ValueError: For another ``dim``.
        """
        if dim != 0:
            raise ValueError(f"images of a memory map are chosen along axis 0, not {dim}")
        rows = index.cpu() if self._rows is None else self._rows[index.cpu()]
        if self._whole is not None:
            return self._whole.index_select(0, rows).to(self.device)
        taken = np.ascontiguousarray(self.source.whole[rows.numpy()])
        return torch.from_numpy(taken).to(self.device)

    def __getitem__(self, key: Any) -> Tensor:  # noqa: ANN401 (whatever a tensor takes)
        if isinstance(key, slice):
            if self._rows is None and self._whole is not None:
                return self._whole[key].contiguous().to(self.device)
            chosen = torch.arange(*key.indices(len(self)))
        elif isinstance(key, Tensor) and key.dtype == torch.int64:
            chosen = key
        else:
            chosen = torch.arange(len(self))[key.cpu() if isinstance(key, Tensor) else key]
        found = self.index_select(0, chosen.reshape(-1))
        return found.view(*chosen.shape, *self.shape[1:])


def placed(
    images: NDArray[Any] | MappedRows | LostRows, device: torch.device
) -> Tensor | MappedTensor:
    """Return images for use on a device; those of a map stay in the map.

    Raises:
        FedltError: If the images lie in a file that this machine lacks.
    """
    if isinstance(images, LostRows):
        raise FedltError(images.reason)
    if isinstance(images, MappedRows):
        return MappedTensor(images, device)
    return as_tensor(images).to(device)
