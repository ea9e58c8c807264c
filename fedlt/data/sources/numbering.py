"""Labels and client ids of any kind, numbered from 0; their names are kept.

Integers are sorted by value. Text is sorted by its letters, unless all of it reads as integers:
then by value. So labels that begin at 1, leave gaps or are words become classes 0 .. C-1.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedlt.data.arrays import IntArray
from fedlt.errors import FedltError, nearest, shortened

_NOBODY = "-"  # as a client id: the image belongs to no client
_INTEGER = re.compile(r"[+-]?\d{1,18}")
Place = Callable[[int], str]  # row of a part -> the row's place in the user's files, in words


@dataclass(frozen=True)
class Words:
    """Labels or client ids of one part, as their distinct names and each row's name."""

    names: list[str]  # distinct
    rows: IntArray  # (N,) positions in `names`; -1: the row has no value

    def numbers(self, known: Mapping[str, int]) -> IntArray:
        """Return the number of each row's name (N,), and -1 where the name is not known."""
        table = np.array([known.get(name, -1) for name in self.names] + [-1], np.int64)
        return table[self.rows]

    def sizes(self) -> dict[str, int]:
        """Return the number of rows of each name."""
        counts = np.bincount(self.rows[self.rows >= 0], minlength=len(self.names))
        return dict(zip(self.names, counts.tolist(), strict=True))


@dataclass(frozen=True)
class Owners:
    """The natural clients of a data set's images."""

    numbers: dict[str, IntArray]  # part -> number of each row's client; -1: nobody
    names: tuple[str, ...]  # (U,) ids of the clients; (): no training image has a client
    strangers: dict[str, dict[str, int]]  # part -> id without training images -> its rows


def number_labels(
    parts: Mapping[str, ArrayLike],
    places: Mapping[str, Place],
    classes: Sequence[object] | None = None,
) -> tuple[dict[str, IntArray], tuple[str, ...]]:
    """Return class numbers of every part, and the names of the classes (C,).

    Args:
        parts: Name of the part -> its labels, (N,) or (N, 1); ``train`` is one of the parts.
        places: Name of the part -> words for the place of a row.
        classes: All classes in the order of their numbers, also those without an image here; None:
            the classes of the training images, sorted.

    Raises:
        FedltError: If a label is missing, has no name or is not among ``classes``, or a class of
            another part has no training image.
    """
    words = {part: read_words(values, places[part], "label") for part, values in parts.items()}
    for part, found in words.items():
        if (found.rows < 0).any():
            raise FedltError(f"{places[part](int(found.rows.argmin()))}: has no label")
    names = _class_names(classes) if classes is not None else in_order(words["train"].names)
    known = {name: number for number, name in enumerate(names)}
    for part, found in words.items():
        strangers = [name for name in found.names if name not in known]
        if strangers:
            row = int(np.flatnonzero(found.rows == found.names.index(strangers[0]))[0])
            if classes is not None:
                stranger = strangers[0]
                raise FedltError(
                    f"{places[part](row)}: class {shortened(stranger)!r} is not one of "
                    f"data.options.classes{nearest(stranger, names)}"
                )
            raise FedltError(
                f"{places[part](row)}: class {shortened(strangers[0])!r} has a {part} image, but no"
                " training image"
            )
    return {part: found.numbers(known) for part, found in words.items()}, tuple(names)


def _class_names(classes: Sequence[object]) -> list[str]:
    """Return given classes as names.

    Raises:
        FedltError: If they are no list of different names.
    """
    names = [] if isinstance(classes, str) else [str(name) for name in classes]
    if len(names) < 2 or len(set(names)) < len(names):
        raise FedltError(
            f"data.options.classes: must be a list of different names, got {classes!r}"
        )
    return names


def number_clients(parts: Mapping[str, ArrayLike], places: Mapping[str, Place]) -> Owners:
    """Return the natural clients of every part's rows.

    The clients are those with training images. A row gets -1 if it has no client ("", "-", None or
    NaN), or, in another part, one without training images.

    Args:
        parts: Name of the part -> its client ids, (N,) or (N, 1); ``train`` is one of the parts.
        places: Name of the part -> words for the place of a row.

    Raises:
        FedltError: If there is more than one client a row, or a client has no name.
    """
    words = {part: read_words(values, places[part], "client") for part, values in parts.items()}
    clients = in_order([name for name in words["train"].names if name != _NOBODY])
    known = {name: number for number, name in enumerate(clients)}
    strangers = {
        part: {n: size for n, size in found.sizes().items() if n not in known and n != _NOBODY}
        for part, found in words.items()
    }
    numbers = {part: found.numbers(known) for part, found in words.items()}
    return Owners(numbers, tuple(clients), strangers)


def in_order(names: list[str]) -> list[str]:
    """Return names sorted by value if all are integers, else by their letters."""
    if all(_INTEGER.fullmatch(name) for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def read_words(values: ArrayLike, place: Place, what: str) -> Words:
    """Return labels or client ids as names; a missing value (None, NaN, "") is row -1.

    Args:
        values: (N,) or (N, 1): integers, whole floats, booleans, text, bytes, or a mix.
        place: Words for the place of a row.
        what: ``label`` or ``client``, for messages.

    Raises:
        FedltError: If there is more than one value a row, or a value has no name.
    """
    array = np.asarray(values)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise FedltError(f"{place(0)}: needs one {what} a row, got an array {array.shape}")
    distinct, rows = np.unique(_as_text(array, place, what), return_inverse=True)
    names = [_name(value) for value in distinct.tolist()]
    if None in names:
        row = int(np.flatnonzero(rows == names.index(None))[0])
        raise _nameless(array[row], place(row), what)
    return _without_blanks([name or "" for name in names], rows.astype(np.int64))


def _as_text(array: NDArray[Any], place: Place, what: str) -> NDArray[Any]:
    """Return an array of objects as text, with "" for a missing value; other arrays as they are."""
    if array.dtype.kind != "O":
        return array
    names = ["" if value is None else _name(value) for value in array]
    if None in names:
        row = names.index(None)
        raise _nameless(array[row], place(row), what)
    return np.array(names, np.str_)


def _nameless(value: object, place: str, what: str) -> FedltError:
    return FedltError(f"{place}: {what} {shortened(str(value))} is neither an integer nor text")


def _name(value: object) -> str | None:
    """Return the name of a label or client id, "" for NaN, None for a value that has no name."""
    if isinstance(value, bytes | np.bytes_):
        return value.decode(errors="replace").strip()
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool | int | np.bool_ | np.integer):
        return str(int(value))
    if isinstance(value, float | np.floating):
        if np.isnan(value):
            return ""
        return str(int(value)) if np.isfinite(value) and value == int(value) else None
    return None


def _without_blanks(names: list[str], rows: IntArray) -> Words:
    """Return the words with equal names joined, and blank names as row -1."""
    distinct = list(dict.fromkeys(name for name in names if name))
    known = {name: number for number, name in enumerate(distinct)}
    return Words(distinct, np.array([known.get(name, -1) for name in names], np.int64)[rows])
