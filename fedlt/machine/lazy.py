"""A sequence whose items are made when they are asked for: not all are in memory at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar, overload

Key = TypeVar("Key")
Made = TypeVar("Made")


class Lazy(Sequence[Made], Generic[Key, Made]):
    """The items ``make(key)`` of some keys, each made anew whenever it is read; pickled, a list."""

    def __init__(self, make: Callable[[Key], Made], keys: Sequence[Key]) -> None:
        self._make, self._keys = make, keys

    def __len__(self) -> int:
        return len(self._keys)

    @overload
    def __getitem__(self, index: int) -> Made: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Made]: ...
    def __getitem__(self, index: int | slice) -> Made | Sequence[Made]:
        if isinstance(index, slice):
            return Lazy(self._make, self._keys[index])
        return self._make(self._keys[index])

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)
