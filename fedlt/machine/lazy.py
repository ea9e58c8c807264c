"""Sequence that makes an item at each access, so that not all items are in memory at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar, overload

LazyKey = TypeVar("LazyKey")
LazyItem = TypeVar("LazyItem")


class Lazy(Sequence[LazyItem], Generic[LazyKey, LazyItem]):
    """Sequence of ``make(key)`` for some keys, computed at each access; pickled as a list."""

    def __init__(self, make: Callable[[LazyKey], LazyItem], keys: Sequence[LazyKey]) -> None:
        self._make, self._keys = make, keys

    def __len__(self) -> int:
        return len(self._keys)

    @overload
    def __getitem__(self, index: int) -> LazyItem: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[LazyItem]: ...
    def __getitem__(self, index: int | slice) -> LazyItem | Sequence[LazyItem]:
        if isinstance(index, slice):
            return Lazy(self._make, self._keys[index])
        return self._make(self._keys[index])

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)
