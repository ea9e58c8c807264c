"""Images in the layouts that users have, brought to (N, Ch, H, W)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedlt.data.arrays import Pixels
from fedlt.data.moments import value_span
from fedlt.errors import FedltError
from fedlt.machine.maps import map_place

CHANNELS = (1, 2, 3, 4)
_USUAL = (1, 3)  # numbers of channels by which the axis is told first


def usable_images(where: str, given: ArrayLike, *, channels_last: bool | None = None) -> Pixels:
    """Return images as uint8 or float32 (N, Ch, H, W); of a memory map, a view of it.

    Args:
        where: Beginning of an error line.
        given: uint8, or floats in [0, 1]: (N, H, W), (N, H, W, Ch) or (N, Ch, H, W), with 1 to 4
            channels; or float features (N, d), which become (N, d, 1, 1).
        channels_last: Whether the channel axis is the last; None: as the sizes tell.

    Raises:
        FedltError: If type, shape or values do not fit.
    """
    array = _typed(where, given)
    if array.ndim == 2 and array.dtype == np.float32:
        if array.size and not np.isfinite(value_span(array)).all():
            raise FedltError(f"{where} have a value that is not finite")
        return array[:, :, None, None]
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4:
        array = _channels_first(where, array, channels_last)
    else:
        raise FedltError(
            f"{where} must have 3 or 4 axes, or 2 as float features, got {array.dtype} "
            f"{array.shape}; flat images need reshape((-1, height, width))"
        )
    if array.dtype == np.float32 and array.size:
        _check_span(where, array)
    return array


def _typed(where: str, given: ArrayLike) -> NDArray[Any]:
    """Return images as a uint8 or float32 array."""
    try:
        array = given if isinstance(given, np.ndarray) else np.asarray(given)
    except ValueError as error:
        raise FedltError(f"{where} are not of one size: {error}") from error
    if array.dtype == np.uint8 or array.dtype == np.float32:
        return array
    if array.dtype.kind == "f":
        if map_place(array) is not None:
            raise FedltError(f"{where} are a memory map of {array.dtype}; save float32 or uint8")
        return array.astype(np.float32)
    repair = "pixels from 0 to 255 need .astype(numpy.uint8)"
    if array.dtype == np.bool_:
        repair = "pixels that are true or false need 255 * images.astype(numpy.uint8)"
    found = f"{array.dtype} {array.shape}"
    raise FedltError(f"{where} must be uint8, or floats in [0, 1], got {found}; {repair}")


def _channels_first(where: str, array: NDArray[Any], channels_last: bool | None) -> NDArray[Any]:
    if channels_last is None:
        channels_last = _tell_last(where, array.shape)
    found = array.transpose(0, 3, 1, 2) if channels_last else array
    return found if map_place(array) is not None else np.ascontiguousarray(found)


def _tell_last(where: str, shape: tuple[int, ...]) -> bool:
    """Return True if the last axis must be the channel axis."""
    for sizes in (_USUAL, CHANNELS):
        first, last = shape[1] in sizes, shape[3] in sizes
        if first != last:
            return last
    raise FedltError(
        f"{where} {shape}: cannot tell the channel axis (1 to 4 channels, second or last axis); "
        "say channels_last=True or channels_last=False"
    )


def _check_span(where: str, images: Pixels) -> None:
    low, high = value_span(images)
    if not (low >= 0 and high <= 1):
        repair = (
            "divide them by 255 or give uint8" if low >= 0 and 1 < high <= 255 else "scale them"
        )
        raise FedltError(
            f"{where} are floats from {low:g} to {high:g}, where [0, 1] is expected; {repair}"
        )
