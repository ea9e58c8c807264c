"""Files and folders that must be there, and one line about those that are not."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

from fedlt.data.sources.known_sets import KnownSet
from fedlt.errors import FedltError

_MOST_SIBLINGS = 1000  # names that are searched for a similar one


def need_folder(path: str, option: str, known: KnownSet | None = None) -> Path:
    """Return an existing folder.

    Args:
        path: The folder.
        option: The dotted key that names it, for messages.
        known: The data set that is looked for, if it is a known one.

    Raises:
        FedltError: If there is no such folder, with what to download for a known data set.
    """
    place = _place(path, option)
    if not place.is_dir():
        raise FedltError(_missing(place, option, "folder", known))
    return place


def need_file(path: str, option: str, known: KnownSet | None = None) -> Path:
    """Return an existing file; see :func:`need_folder`.

    Raises:
        FedltError: If there is no such file.
    """
    place = _place(path, option)
    if not place.is_file():
        raise FedltError(_missing(place, option, "file", known))
    return place


def need_tables(
    tables: Mapping[str, str | None], root: str | None, known: KnownSet | None = None
) -> tuple[dict[str, Path], Path]:
    """Return the existing files that name images, and the folder where their paths start.

    Args:
        tables: Option -> file, or None where the option is not given; the first one is given.
        root: The folder; None: the folder of the first file.
        known: A known data set, for the words of an error.

    Raises:
        FedltError: If a file or the folder is missing.
    """
    files = {
        option: need_file(path, f"data.options.{option}", known)
        for option, path in tables.items()
        if path is not None
    }
    if root is None:
        return files, next(iter(files.values())).parent
    return files, need_folder(root, "data.options.root", known)


def need_array_file(path: str, option: str, known: KnownSet | None = None) -> Path:
    """Return an existing file or folder of arrays; see :func:`need_folder`.

    Raises:
        FedltError: If there is neither.
    """
    place = _place(path, option)
    return place if place.is_dir() else need_file(path, option, known)


def _place(path: object, option: str) -> Path:
    if not isinstance(path, str) or not path:
        raise FedltError(f"{option}: must be a path, got {path!r}")
    return Path(path).expanduser()


def _missing(place: Path, option: str, what: str, known: KnownSet | None) -> str:
    words = f"{option}: no {what} {str(place)!r}{similar(place)}"
    if known is None:
        return words
    return f"{words}; {known.title}: {known.obtain}, and set {option} to its place"


def similar(place: Path) -> str:
    """Return the end of a line about a missing path: the most similar name that is there."""
    try:
        names = [one.name for one in islice(place.parent.iterdir(), _MOST_SIBLINGS)]
    except OSError:
        return ""
    close = difflib.get_close_matches(place.name, names, n=1, cutoff=0.6)
    return f"; nearest: {close[0]!r}" if close else ""
