"""Statistics of images: mean and deviation of each channel, and the span of the values.

Statistics of a large memory map are computed once and kept until the file changes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import torch

from fedlt.data.arrays import Pixels
from fedlt.machine.array_digests import remembered_about
from fedlt.machine.memory import as_tensor

_CHUNK = 2**20  # values looked at by one step, so that statistics need little memory

Moments = tuple[tuple[float, ...], tuple[float, ...]]  # means and standard deviations (Ch,)


def channel_moments(images: Pixels) -> Moments:
    """Return mean and standard deviation of every channel.

    Args:
        images: uint8 (N, Ch, H, W), of which value / 255 counts; or float32, which counts as it is.

    Returns:
        Mean (Ch,) and standard deviation (Ch,); a constant channel gets standard deviation 1.
    """
    make = _of_integers if images.dtype == np.uint8 else _of_floats
    mean, std = json.loads(remembered_about(images, "moments", lambda: json.dumps(make(images))))
    return tuple(mean), tuple(std)


def value_span(images: Pixels) -> tuple[float, float]:
    """Return the smallest and the largest value of float images; NaN if there is a NaN."""

    def find() -> str:
        low = high = None
        for part in _parts(images):
            low = part.min() if low is None else np.minimum(low, part.min())
            high = part.max() if high is None else np.maximum(high, part.max())
        return json.dumps([float(low or 0), float(high or 0)])

    low, high = json.loads(remembered_about(images, "span", find))
    return low, high


def _parts(images: Pixels) -> Iterator[Pixels]:
    size = max(1, _CHUNK // max(1, int(np.prod(images.shape[1:]))))
    return (images[start : start + size] for start in range(0, len(images), size))


def _of_integers(images: Pixels) -> tuple[list[float], list[float]]:
    """Return the moments from exact histograms."""
    histogram = np.zeros((images.shape[1], 256), np.int64)
    for part in _parts(images):
        for channel, counts in enumerate(histogram):  # torch counts bytes without a wider copy
            values = as_tensor(np.ascontiguousarray(part[:, channel])).view(-1)
            counts += torch.bincount(values, minlength=256).numpy()
    levels = np.arange(256) / 255
    weights = histogram / histogram.sum(axis=1, keepdims=True)
    mean = weights @ levels
    std = np.sqrt((weights * (levels - mean[:, None]) ** 2).sum(axis=1))
    return mean.tolist(), _above_zero(std)


def _of_floats(images: Pixels) -> tuple[list[float], list[float]]:
    """Return the moments in two passes of double precision, the squares about the mean."""
    count = images.size // images.shape[1]
    sums = [part.sum(axis=(0, 2, 3), dtype=np.float64) for part in _parts(images)]
    mean = np.sum(sums, axis=0) / count
    centre = mean[:, None, None]
    squares = [((part - centre) ** 2).sum(axis=(0, 2, 3)) for part in _parts(images)]
    return mean.tolist(), _above_zero(np.sqrt(np.sum(squares, axis=0) / count))


def _above_zero(std: np.ndarray) -> list[float]:
    found: list[float] = np.where(std > 0, std, 1.0).tolist()
    return found
