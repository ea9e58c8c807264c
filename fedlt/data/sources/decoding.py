"""Decoding of many images in threads, in order, a few hundred at a time.

PIL decodes and resizes outside of Python's lock, so threads use all cores.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlt.data.arrays import IntArray
from fedlt.data.sources.numbering import Place
from fedlt.data.sources.pictures import Size, read_picture
from fedlt.errors import FedltError

_CHUNK = 64  # images that a thread decodes at a time
Sources = Sequence[Path | bytes]  # image files, or the bytes of image files
_Chunk = tuple[NDArray[np.uint8], list[str]]  # images (n, Ch, H, W); a line for each broken one


class Chosen(Sequence[Any]):
    """Some of a data set's images, in an order of their own; a row is read when it is asked for."""

    def __init__(self, sources: Sources, rows: IntArray) -> None:
        self._sources, self._rows = sources, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, at: Any) -> Any:  # noqa: ANN401 (a row or a slice of rows)
        if isinstance(at, slice):
            return [self._sources[int(row)] for row in self._rows[at]]
        return self._sources[int(self._rows[at])]


@dataclass(frozen=True)
class Form:
    """Form that all images of a data set are brought to."""

    size: Size | None = None  # height and width; None: images are of equal size already
    channels: int = 3


@dataclass(frozen=True)
class FirstImage:
    """Shape that images must have, and the image that it was read from."""

    shape: tuple[int, ...]  # (Ch, H, W)
    where: str  # place of that image, in words


def first_shape(sources: Sources, place: Place, form: Form) -> FirstImage:
    """Return the shape of the images of a data set, from its first image.

    Raises:
        FedltError: If the image cannot be read.
    """
    where = place(0)
    if form.size is not None:
        return FirstImage((form.channels, *form.size), where)
    image = read_picture(sources[0], channels=form.channels, size=None, where=where)
    return FirstImage(image.shape, where)


def decoded(
    sources: Sources, place: Place, form: Form, first: FirstImage, *, threads: int
) -> Iterator[NDArray[np.uint8]]:
    """Yield all images in order, as arrays (n, Ch, H, W).

    Args:
        sources: The image files, or their bytes.
        place: Words for the place of an image.
        form: The form to bring images to.
        first: The shape that all images must then have.
        threads: Number of threads.

    Raises:
        FedltError: If images cannot be read, after all have been tried; or if images differ in size
            and ``form`` has none.
    """

    def chunk(start: int, part: Sources) -> _Chunk:
        images = np.zeros((len(part), *first.shape), np.uint8)
        broken: list[str] = []
        for row, source in enumerate(part):
            where = place(start + row)
            try:
                image = read_picture(source, channels=form.channels, size=form.size, where=where)
            except FedltError as error:
                broken.append(str(error))
                continue
            if image.shape != first.shape:
                raise _unequal(first, image.shape, where)
            images[row] = image
        return images, broken

    lines: list[str] = []
    for images, broken in _in_threads(chunk, sources, threads):
        lines += broken
        yield images
    if lines:
        first_of = "" if len(lines) == 1 else "; the first"
        words = f"{len(lines):,} of {len(sources):,} images cannot be read{first_of}"
        raise FedltError(f"{words}: {lines[0]}")


def _in_threads(
    chunk: Callable[[int, Sources], _Chunk], sources: Sources, threads: int
) -> Iterator[_Chunk]:
    """Yield what ``chunk`` returns of each part of the images, in order."""
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[_Chunk]] = deque()
        try:
            for start in range(0, len(sources), _CHUNK):
                waiting.append(pool.submit(chunk, start, sources[start : start + _CHUNK]))
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _unequal(first: FirstImage, shape: tuple[int, ...], where: str) -> FedltError:
    sizes = [f"{height} x {width} pixels" for _, height, width in (first.shape, shape)]
    return FedltError(
        f"{first.where}: {sizes[0]}, but {where}: {sizes[1]} (height x width);"
        " data.options.image_size, such as 64, brings all images to one size"
    )
