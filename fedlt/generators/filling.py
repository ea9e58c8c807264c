"""Making of pools, part by part, cached under a hash of all inputs.

    $FEDLT_CACHE/NAME-HASH.npz      a finished pool
    $FEDLT_CACHE/NAME-HASH.parts/   trained weights and finished parts of an unfinished pool

Every file is written atomically, so a generation that was stopped continues, with the same bits in
the end. If two processes want the same pool, the second process waits for the first.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedlt.data.arrays import Images, IntArray
from fedlt.errors import FedltError
from fedlt.generators.generator import ClientGroup, Generator, Items, PoolRequest
from fedlt.generators.measures import level_lines
from fedlt.generators.pool import Pool, check_pixels, load_pool, save_pool
from fedlt.machine.cache import cache_directory

_AT_ONCE = 4096  # rows of an array digested at a time
VERSION = 1  # raise it when a generator's recipe changes


def filled_pool(generator: Generator, request: PoolRequest) -> Pool:
    """Return the pool of a request, from the cache or newly made.

    Args:
        generator: Generator that makes the images.
        request: Sources, levels and data of the pool.

    Raises:
        FedltError: If there are no sources, or the pool cannot be made.
    """
    check_pixels(request.preparation.data)
    if not sum(map(len, request.sources)):
        raise FedltError("no client holds an image to make others from")
    progress = request.preparation.progress
    if generator.reference:
        progress.note(f"pool: {generator.name}: not federated: {generator.reference}")
    place = pool_place(generator, request)
    pool = _kept(place)
    if pool is None:
        folder = place.with_suffix(".parts")
        with _alone(folder):
            pool = _kept(place)  # another process may have been faster
            if pool is None:
                pool = _fill(generator, request, folder)
                save_pool(pool, place)
            shutil.rmtree(folder, ignore_errors=True)
    for line in level_lines(pool, request.preparation.data, generator.least_score):
        progress.note(f"pool: {line}")
    return pool


def pool_place(generator: Generator, request: PoolRequest) -> Path:
    """Return the path of a request's pool in the cache; the file may not exist yet."""
    preparation = request.preparation
    data = preparation.data
    found = hashlib.blake2b(digest_size=16)
    settings: Mapping[str, object] = {
        "name": generator.name,
        "settings": dict(generator.settings()),
        "levels": request.levels,
        "seed": preparation.seed,
        "cohort": preparation.cohort,
        "device": preparation.device.type,
        "versions": [VERSION, torch.__version__],
    }
    found.update(json.dumps(settings, sort_keys=True).encode())
    arrays: list[Images | IntArray] = [data.train_images, data.train_labels, data.pool_indices]
    for array in [*arrays, *preparation.clients, *request.sources]:
        found.update(str(array.shape).encode())
        for start in range(0, len(array), _AT_ONCE):
            found.update(np.ascontiguousarray(array[start : start + _AT_ONCE]).tobytes())
    return cache_directory() / f"{generator.name}-{found.hexdigest()}.npz"


def _fill(generator: Generator, request: PoolRequest, folder: Path) -> Pool:
    """Return a pool, after making the parts that are missing."""
    groups = [group for group in generator.groups(request) if len(group.sources)]
    work = [list(_chunks(generator, group, request.levels)) for group in groups]
    rounds = [generator.rounds_of(group) for group in groups]
    total = sum(rounds) + sum(map(len, work))
    progress = request.preparation.progress
    images = sum(map(len, request.sources)) * len(request.levels) * generator.per_image
    more = generator.announce(request, groups)
    progress.note(
        f"pool: {generator.name} makes {images} images before the first round, once: other runs "
        f"find them{'; ' if more else ''}{more}"
    )
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        progress.advance(done, f"pool: {generator.name}")

    progress.start(total)
    parts = []
    for number, (group, chunks, learning) in enumerate(zip(groups, work, rounds, strict=True)):
        own = folder / str(number)
        own.mkdir(exist_ok=True)
        files = [own / f"{index}.npz" for index in range(len(chunks))]
        maker, before = None, done
        for file, items in zip(files, chunks, strict=True):
            part = _kept(file)
            if part is None:
                maker = maker or generator.open(request, group, own, tick)
                part = _part(request, items, *maker(items))
                save_pool(part, file)
            parts.append(part)
            done = max(done, before + learning)  # count rounds that a stopped process finished
            tick()
    progress.stop()
    return _joined(parts)


def _kept(place: Path) -> Pool | None:
    """Return the pool in a file; None if the file is missing or cannot be read."""
    with suppress(FedltError):
        return load_pool(place)
    return None


def _chunks(generator: Generator, group: ClientGroup, levels: tuple[float, ...]) -> Iterator[Items]:
    sources = np.repeat(group.sources, generator.per_image)
    copies = np.tile(np.arange(generator.per_image), len(group.sources))
    for level in levels:
        for start in range(0, len(sources), generator.batch):
            part = slice(start, start + generator.batch)
            yield Items(level, sources[part], copies[part])


def _part(request: PoolRequest, items: Items, images: NDArray[Any], scores: NDArray[Any]) -> Pool:
    data = request.preparation.data
    return Pool(
        images,
        data.train_labels[items.sources],
        np.full(len(images), items.level),
        data.pool_indices[items.sources],
        scores,
    )


def _joined(parts: list[Pool]) -> Pool:
    fields = ("images", "labels", "levels", "sources", "scores")
    return Pool(*(np.concatenate([getattr(part, name) for part in parts]) for name in fields))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Lock a folder inside the block. The lock ends with the process, also if it crashes."""
    lock = folder.with_suffix(".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            folder.mkdir(parents=True, exist_ok=True)  # a faster process has removed the folder
            yield
            lock.unlink(missing_ok=True)  # waiting processes will find the finished pool
    except OSError as error:
        raise FedltError(f"the pool cannot be kept in {folder.parent}: {error.strerror}") from error
