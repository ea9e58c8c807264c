"""Digests (SHA-256 in hex) of files; digests of large files are cached.

A digest lies in the user's cache under the file's path, size, times and inode, so a file is read
again only if it may have changed. The digest of a file that changed a moment ago is not cached: a
second change within one tick of the clock would leave the same times.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from fedlt.machine.cache import cache_directory
from fedlt.machine.durable import replacing

UNREADABLE = "unreadable"  # stands for the digest of a file that cannot be read
SMALL = 2**20  # bytes: a file up to this size is quicker to read than to look up
_SETTLED = 2.0  # seconds since its last change after which a file's digest is cached


def file_digest(path: Path) -> str:
    """Return the digest of a file's bytes, or :data:`UNREADABLE`, also for a pipe or a device."""
    try:
        if not path.is_file():  # a device may never end
            return UNREADABLE
        if path.stat().st_size <= SMALL:
            return hashlib.sha256(path.read_bytes()).hexdigest()
        return remembered(path, "file", lambda: _read_digest(path))
    except OSError:
        return UNREADABLE


def _read_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def path_digest(path: Path) -> str:
    """Return the digest of a file, or of the names and bytes of every file in a folder."""
    if not path.is_dir():
        return file_digest(path)
    try:
        files = sorted(file for file in path.rglob("*") if file.is_file())
    except OSError:
        return UNREADABLE
    text = "".join(f"{file.relative_to(path)} {file_digest(file)}\n" for file in files)
    return hashlib.sha256(text.encode()).hexdigest()


def remembered(path: Path, what: str, make: Callable[[], str]) -> str:
    """Return ``make()``, a text about a file, or its cached result if the file has not changed."""
    stamp = _stamp(path)
    try:
        key = hashlib.sha256(f"{path.absolute()}\n{what}".encode()).hexdigest()[:32]
        place = cache_directory() / "digests" / f"{key}.json"
    except RuntimeError:  # this user has no home directory
        return make()
    with suppress(OSError, ValueError, LookupError, TypeError):
        known = json.loads(place.read_text(encoding="utf-8"))
        if known["stamp"] == stamp and isinstance(known["digest"], str):
            return str(known["digest"])
    digest = make()
    if stamp == _stamp(path) and time.time() - max(stamp[1:3]) / 1e9 > _SETTLED:
        with suppress(OSError):
            place.parent.mkdir(parents=True, exist_ok=True)
            with replacing(place) as file:
                file.write(json.dumps({"stamp": stamp, "digest": digest}).encode())
    return digest


def _stamp(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev]
