"""A sequence whose items are made when they are asked for: not all are in memory at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar, overload

LazyKey = TypeVar("LazyKey")
LazyItem = TypeVar("LazyItem")


class Lazy(Sequence[LazyItem], Generic[LazyKey, LazyItem]):
    """The items ``make(key)`` of some keys, each made anew whenever it is read; pickled, a list."""

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
