"""Labels and client ids of any kind, mapped to the numbers 0, 1, 2, ... with their names kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedlt.data.arrays import IntArray
from fedlt.errors import FedltError, nearest

_KINDS = "iubUSO"  # of NumPy types: integers, truth values, texts, and objects such as texts


def numbered_labels(
    where: str, parts: Mapping[str, ArrayLike], class_names: Sequence[str] | None
) -> tuple[dict[str, IntArray], tuple[str, ...]]:
    """Return the labels of every part as class numbers, and the names of the classes.

    Labels 0 .. C-1 stay as they are. Other labels are numbered in ascending order; a label becomes
    the name of its class. Given names number texts by their place among the names, and integers
    that are no places by their rank.

    Args:
        where: Beginning of an error line.
        parts: Labels (n,) or (n, 1) of ``train`` and other parts: integers, truth values or texts.
        class_names: (C,), or None.

    Returns:
        int64 (n,) for each part, and (C,) names.

    Raises:
        FedltError: If labels are of another kind or shape, or do not fit the names.
    """
    arrays = {part: _column(f"{where}: {part} labels", given) for part, given in parts.items()}
    kinds = {array.dtype.kind in "iu" for array in arrays.values()}
    if len(kinds) > 1:
        found = ", ".join(f"{part} {array.dtype}" for part, array in arrays.items())
        raise FedltError(f"{where}: labels are numbers in one part and texts in another: {found}")
    known = _distinct(where, arrays.values())
    if kinds == {True}:
        return _numbered_integers(where, arrays, known, class_names)
    names = tuple(map(_text, known)) if class_names is None else tuple(map(str, class_names))
    place = {name: number for number, name in enumerate(names)}
    for value in known:
        if _text(value) not in place:
            raise FedltError(f"{where}: no class {_text(value)!r}{nearest(_text(value), names)}")
    table = np.array([place[_text(value)] for value in known], np.int64)
    return {part: table[np.searchsorted(known, one)] for part, one in arrays.items()}, names


def numbered_clients(
    where: str, train: ArrayLike, others: Mapping[str, ArrayLike]
) -> tuple[IntArray, dict[str, IntArray], tuple[str, ...], dict[str, dict[str, int]]]:
    """Return client ids as numbers 0 .. U-1, in the ascending order of the ids, and their names.

    The last value has, for each other part, the ids without a training image and their images.

    Args:
        where: Beginning of an error line.
        train: (N,) the client id of each training image: integers or texts.
        others: (M,) client ids of other parts. An id without a training image becomes -1.

    Raises:
        FedltError: If ids are of another kind or shape.
    """
    ids = _column(f"{where}: train clients", train)
    known = _distinct(where, [ids])
    found, strangers = {}, {}
    for part, given in others.items():
        own = _column(f"{where}: {part} clients", given)
        if (own.dtype.kind in "iu") != (ids.dtype.kind in "iu"):
            raise FedltError(f"{where}: {part} clients are {own.dtype}, train clients {ids.dtype}")
        place = np.searchsorted(known, own).clip(max=len(known) - 1)
        found[part] = np.where(known[place] == own, place, -1).astype(np.int64)
        names, sizes = np.unique(own[found[part] < 0], return_counts=True)
        strangers[part] = dict(zip(map(_text, names), sizes.tolist(), strict=True))
    numbers = np.searchsorted(known, ids).astype(np.int64)
    return numbers, found, tuple(map(_text, known)), strangers


def _numbered_integers(
    where: str,
    arrays: Mapping[str, NDArray[Any]],
    known: NDArray[Any],
    class_names: Sequence[str] | None,
) -> tuple[dict[str, IntArray], tuple[str, ...]]:
    if len(known) and known[0] < 0:
        raise FedltError(f"{where}: a label is {known[0]}; leave images without a class out")
    highest, size = int(known[-1]) if len(known) else -1, len(known)
    names = None if class_names is None else tuple(map(str, class_names))
    if highest < (size if names is None else len(names)):
        plain = {part: array.astype(np.int64) for part, array in arrays.items()}
        return plain, names or tuple(map(str, range(size)))
    if names is not None and len(names) != size:
        raise FedltError(f"{where}: {len(names)} class_names, but labels are 0 to {highest}")
    ranked = {p: np.searchsorted(known, a).astype(np.int64) for p, a in arrays.items()}
    return ranked, names or tuple(map(str, known.tolist()))


def _distinct(where: str, arrays: Iterable[NDArray[Any]]) -> NDArray[Any]:
    """Return the distinct values of several arrays, ascending."""
    try:
        return np.unique(np.concatenate([np.unique(array) for array in arrays]))
    except TypeError as error:  # objects that cannot be ordered
        raise FedltError(f"{where}: labels and ids of different kinds: {error}") from error


def _column(what: str, given: ArrayLike) -> NDArray[Any]:
    """Return labels or ids as an array (n,); a column (n, 1) is flattened."""
    array = np.asarray(given)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or array.dtype.kind not in _KINDS:
        raise FedltError(
            f"{what} must be integers or texts (N,) or (N, 1), got {array.dtype} {array.shape}"
        )
    return array


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
