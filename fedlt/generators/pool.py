"""Pools of synthetic images, each image made from one training image, and files of pools.

A pool is filled once, before a run, by a generator of fedlt or by any other program. A run only
reads the pool. Synthetic images count in no class prior and in no aggregation weight.

    pool.npz    images uint8 (M, H, W), (M, H, W, Ch) or (M, Ch, H, W); labels and sources (M,);
                levels (M,) in [0, 1); scores (M,) if the generator scores images
    a folder    LEVEL/CLASS/SOURCE_anything.png, as 0.3/7/1234_0.png
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedlt.errors import FedltError, one_line
from fedlt.machine.cache import cache_directory
from fedlt.machine.durable import replacing

if TYPE_CHECKING:
    from fedlt.data.federated import FederatedData

_FIELDS = ("images", "labels", "levels", "sources")


@dataclass(frozen=True, eq=False)
class Pool:
    """Synthetic images with their classes, levels and sources, checked on construction.

    Raises:
        FedltError: If a dtype, a length or a value does not fit.
    """

    images: NDArray[np.uint8]  # (M, Ch, H, W)
    labels: NDArray[np.int64]  # (M,) classes
    levels: NDArray[np.float64]  # (M,) guidance by the source image: 0 none, towards 1 a copy
    sources: NDArray[np.int64]  # (M,) rows of the source images in the data set's training pool
    scores: NDArray[np.float64] | None = None  # (M,) the higher, the better the class is shown

    def __post_init__(self) -> None:
        images = np.asarray(self.images)
        if images.dtype != np.uint8 or images.ndim not in (3, 4):
            raise FedltError(f"images must be uint8 with 3 or 4 axes, not {_kind(images)}")
        if images.ndim == 4 and images.shape[1] not in (1, 3):
            images = images.transpose(0, 3, 1, 2)
        fixed: dict[str, Any] = {"images": images[:, None] if images.ndim == 3 else images}
        for name in ("labels", "sources"):
            values = np.asarray(getattr(self, name))
            if not np.issubdtype(values.dtype, np.integer) or values.min(initial=0) < 0:
                raise FedltError(f"{name} must be whole numbers of at least 0")
            fixed[name] = values.astype(np.int64)
        fixed["levels"] = np.round(np.asarray(self.levels, dtype=np.float64), 6)
        if not bool(((fixed["levels"] >= 0) & (fixed["levels"] < 1)).all()):
            raise FedltError("levels must lie in [0, 1)")
        if self.scores is not None:
            fixed["scores"] = np.asarray(self.scores, dtype=np.float64)
            if not bool(np.isfinite(fixed["scores"]).all()):
                raise FedltError("scores must be finite")
        for name, values in fixed.items():
            if len(values) != len(images) or (name != "images" and values.ndim != 1):
                raise FedltError(f"{len(images)} images, but {name} of shape {values.shape}")
            object.__setattr__(self, name, np.ascontiguousarray(values))

    def __len__(self) -> int:
        return len(self.images)

    def take(self, chosen: NDArray[Any]) -> Pool:
        """Return the part of the pool that rows or a mask select."""
        scores = None if self.scores is None else self.scores[chosen]
        return Pool(**{name: getattr(self, name)[chosen] for name in _FIELDS}, scores=scores)


def check_pixels(data: FederatedData) -> None:
    """Refuse a data set whose images are no 8-bit pixels, of which pools are made.

    Raises:
        FedltError: If the images are floats.
    """
    if data.train_images.dtype != np.uint8:
        raise FedltError(
            f"pool: synthetic images are 8-bit pixels, and the images of {data.name!r} are floats; "
            "save them as uint8"
        )


def load_pool(path: str | Path) -> Pool:
    """Return the pool in an npz file or a folder; a folder's images are decoded once and cached.

    Raises:
        FedltError: If the path does not exist, is no pool, or holds no image.
    """
    place = Path(path)
    try:
        if place.is_dir():
            files = sorted(place.glob("*/*/*.png"))
            pool = cached_pool("pool", [_digest(place, files)], lambda: _read_folder(place, files))
        else:
            pool = _read_file(place)
    except FedltError as error:
        raise FedltError(f"pool {str(place)!r}: {error}") from error
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise FedltError(f"pool {str(place)!r} cannot be read: {reason}") from error
    if len(pool) == 0:
        raise FedltError(f"pool {str(place)!r}: no image; expected LEVEL/CLASS/SOURCE_n.png")
    return pool


def save_pool(pool: Pool, path: str | Path) -> None:
    """Write a pool to an npz file, atomically."""
    fields: dict[str, Any] = {name: getattr(pool, name) for name in _FIELDS}
    fields |= {} if pool.scores is None else {"scores": pool.scores}
    with replacing(Path(path)) as file:
        np.savez_compressed(file, **fields)


def cached_pool(kind: str, inputs: list[str], make: Callable[[], Pool]) -> Pool:
    """Return ``make()``, or its earlier result for the same inputs from the cache.

    Args:
        kind: Kind of pool; the cache file's name begins with this word.
        inputs: All inputs of the pool: digests of the data, the seed, the settings.
        make: Function that makes the pool.
    """
    digest = hashlib.blake2b("\n".join([kind, *inputs]).encode(), digest_size=16).hexdigest()
    path = cache_directory() / f"{kind}-{digest}.npz"
    with suppress(OSError, ValueError, KeyError, zipfile.BadZipFile, FedltError):
        return _read_file(path)
    pool = make()
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        save_pool(pool, path)
    return pool


def _read_file(path: Path) -> Pool:
    with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        if not hasattr(file, "files"):
            raise ValueError("it is no npz file")
        scores = file["scores"] if "scores" in file.files else None
        return Pool(**{name: file[name] for name in _FIELDS}, scores=scores)


def _read_folder(folder: Path, files: list[Path]) -> Pool:
    from PIL import Image

    images, numbers = [], []
    for file in files:
        level, label, name = file.relative_to(folder).parts
        try:
            numbers.append((float(level), int(label), int(name.partition("_")[0].split(".")[0])))
        except ValueError as error:
            raise FedltError(f"{level}/{label}/{name} is not LEVEL/CLASS/SOURCE_n.png") from error
        with Image.open(file) as image:
            images.append(np.asarray(image.convert("L" if image.mode in ("L", "1") else "RGB")))
    if len({image.shape for image in images}) > 1:
        raise FedltError("its images differ in size or channels")
    levels, labels, sources = np.array(numbers).reshape(-1, 3).T
    stacked = np.stack(images) if images else np.zeros((0, 1, 1), np.uint8)
    return Pool(stacked, labels.astype(np.int64), levels, sources.astype(np.int64))


def _digest(folder: Path, files: list[Path]) -> str:
    found = hashlib.blake2b(digest_size=16)
    for file in files:
        found.update(f"{file.relative_to(folder)}\0".encode())
        found.update(hashlib.blake2b(file.read_bytes()).digest())
    return found.hexdigest()


def _kind(array: NDArray[Any]) -> str:
    return f"{array.dtype} {array.shape}"
