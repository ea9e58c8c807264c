"""The cache of decoded images: each part of a data set decoded once into one ``.npy`` file.

The file is opened as a memory map. So a process reads only the pages that it needs, and all
processes of a machine share these pages. Its name contains a digest of what it was made of: every
image file with size and time of change, the shape, and this module's version. A changed image
hence leads to a new file. The file appears under its name only when it is whole. While it is
written it is called ``.part`` and locked, and a second process waits for the first.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from fedlt.errors import FedltError
from fedlt.progress import Counter, tell

VERSION = 1  # raise with every change of the pixels that are written


@dataclass(frozen=True)
class Written:
    """Record of one file of the cache: written now, or found there."""

    part: str  # such as "train"
    path: Path
    images: int
    size: int  # bytes of the file
    seconds: float | None  # spent on writing; None: the file was there


@dataclass
class ImageCache:
    """Folder of decoded images, and how to fill it; neither changes a pixel."""

    folder: Path
    workers: int | None = None  # threads that decode; None: one per core
    counter: Callable[[str, int], Counter] = Counter  # shows progress: words, images
    note: Callable[[str], None] = tell  # shows a line of news
    written: list[Written] = field(default_factory=list)  # files opened so far

    @property
    def threads(self) -> int:
        """Number of threads that decode."""
        return self.workers or len(os.sched_getaffinity(0))

    def images(
        self,
        part: str,
        stem: str,
        made_of: Iterable[str],
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        chunks: Callable[[], Iterator[NDArray[Any]]],
    ) -> NDArray[Any]:
        """Return images as a memory map, after writing them if the cache lacks them.

        Args:
            part: Name of the part of the data set, for messages.
            stem: Begin of the file's name.
            made_of: Words that tell the images from all other images.
            shape: (N, Ch, H, W) of all images together.
            dtype: Type of the pixels.
            chunks: Returns the images in order, as arrays (n, Ch, H, W).

        Raises:
            FedltError: If the cache cannot be written, or the chunks cannot be made.
        """
        path = self.folder / f"{stem}-{_digest([*made_of, str(shape), dtype.str])}.npy"
        seconds = None
        if not path.is_file():
            began = time.monotonic()
            with _storing(path), _claimed(path) as file:
                if file is not None:
                    self._write(part, path, file, shape, dtype, chunks)
                    seconds = time.monotonic() - began
        images = _opened(path, shape, dtype)
        self.written.append(Written(part, path, len(images), path.stat().st_size, seconds))
        return images

    def _write(
        self,
        part: str,
        path: Path,
        file: BinaryIO,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        chunks: Callable[[], Iterator[NDArray[Any]]],
    ) -> None:
        """Write all chunks to the open file, and give it its name."""
        header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        need = file.tell() + int(np.prod(shape)) * dtype.itemsize
        _reserve(file, need)
        with self.counter(f"decoding the {part} images", shape[0]) as counter:
            for chunk in chunks():
                file.write(np.ascontiguousarray(chunk, dtype).data)
                counter.advance(len(chunk))
        file.flush()
        if file.tell() != need:
            raise FedltError(f"{path}: {file.tell():,} bytes were made, {need:,} are needed")
        os.fsync(file.fileno())
        _part_of(path).replace(path)


def _digest(words: Iterable[str]) -> str:
    found = hashlib.sha256(f"fedlt images {VERSION}".encode())
    for word in words:
        found.update(b"\0" + word.encode(errors="surrogateescape"))
    return found.hexdigest()[:20]


def _part_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


@contextmanager
def _storing(path: Path) -> Iterator[None]:
    """Turn an OSError into one line that names the cache and how to place it elsewhere."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise FedltError(
            f"{path}: the cache of decoded images cannot be written: {error.strerror};"
            " data.root or FEDLT_DATA names another folder"
        ) from error


@contextmanager
def _claimed(path: Path) -> Iterator[BinaryIO | None]:
    """Open the file that will become ``path`` for this process alone.

    The file is None if another process has finished ``path`` meanwhile. If the block raises, the
    file is deleted. What a killed process has left is written over.
    """
    part = _part_of(path)
    with _open_locked(part) as file:
        if path.is_file():
            part.unlink(missing_ok=True)
            yield None
            return
        try:
            file.truncate(0)
            yield file
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def _open_locked(part: Path) -> BinaryIO:
    """Return a file that is open, locked, and still the one of that name."""
    while True:
        file = os.fdopen(os.open(part, os.O_RDWR | os.O_CREAT, 0o644), "r+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX)  # released when the file is closed, by a kill too
            if os.fstat(file.fileno()).st_ino == part.stat().st_ino:
                return file
        except FileNotFoundError:  # finished, or given up, while this process waited
            pass
        except BaseException:
            file.close()
            raise
        file.close()


def _reserve(file: BinaryIO, size: int) -> None:
    """Take room on the disk, so that a full disk is found before the first image is decoded."""
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            words = f"{error.strerror} (it needs {size / 1e9:.2f} GB)"
            raise OSError(errno.ENOSPC, words) from error
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise


def _opened(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    try:
        images: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise FedltError(f"{path}: is damaged, remove it ({error})") from error
    if images.shape != shape or images.dtype != dtype:
        raise FedltError(f"{path}: is damaged, remove it (it holds {images.dtype} {images.shape})")
    return images


def described(one: Written) -> str:
    """Return one line about a file of the cache: images, speed, size and place."""
    size = f"{one.size / 1e9:.2f} GB" if one.size >= 10**9 else f"{one.size / 1e6:.1f} MB"
    if one.seconds is None:
        speed = "there already"
    else:
        speed = (
            f"decoded in {one.seconds:.1f} s, {one.images / max(one.seconds, 1e-9):,.0f} a second"
        )
    return f"{one.part}: {one.images:,} images, {speed}; {size} in {one.path}"
