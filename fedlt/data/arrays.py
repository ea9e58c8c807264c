"""Type names of NumPy arrays by element type, and read-only views.

Where a type name is used, a comment gives the shape.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlt.machine.maps import MappedRows, map_place

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
Pixels = NDArray[np.uint8] | NDArray[np.float32]
Images = Pixels | MappedRows  # of a data set in memory, or in a memory-mapped file


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    """Return a read-only view, contiguous unless mapped from a file; the array stays writable."""
    dense = array if map_place(array) is not None else np.ascontiguousarray(array)
    view = dense.view(np.ndarray)
    view.flags.writeable = False
    return view


def chosen_rows(images: Pixels, rows: IntArray) -> Images:
    """Return the rows (N,) of images (P, Ch, H, W): a copy if some are left out, or no copy.

    Of a memory map nothing is copied.
    """
    whole = len(rows) == len(images) and bool((rows == np.arange(len(rows))).all())
    if map_place(images) is None:
        return images if whole else images[rows]
    return MappedRows(images, None if whole else rows)
