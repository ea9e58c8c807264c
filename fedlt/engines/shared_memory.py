"""Memory that a driver shares with workers of its own machine, for models and answers to jobs.

Ray's object store takes milliseconds for an object of a megabyte; in memory that both processes
have mapped it is one copy. The memory has no name in any file system: a worker opens it by the
driver's process and file descriptor, and it is freed when both processes have ended. The driver
says where everything goes. What has no place, or does not fit it, travels through Ray.

    0 .. ANSWERS         places of equal size, one a job, for the workers to write
    ANSWERS .. SIZE      areas, one for each name, for the driver to write
"""

from __future__ import annotations

import mmap
import os
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

SIZE = 512 * 2**20  # bytes; pages cost memory once they are used
ANSWERS = SIZE // 2  # bytes for answers
_ALIGNMENT = 64  # bytes: a buffer begins on a cache line
_GAPS = 2**16  # bytes of a place for the gaps between buffers

Place = tuple[int, int]  # first byte, and bytes
Address = tuple[int, int]  # process, and its file descriptor


class SharedMemory:
    """Memory of this process, for others of this machine to map."""

    def __init__(self) -> None:
        self._file = os.memfd_create("fedlt")
        os.ftruncate(self._file, SIZE)
        self.address: Address = (os.getpid(), self._file)
        self.bytes = mmap.mmap(self._file, SIZE)

    @classmethod
    def make(cls) -> Self | None:
        """Return new memory, or None where the system has none of this kind."""
        try:
            return cls()
        except (AttributeError, OSError):
            return None


@lru_cache(maxsize=1)
def mapped(address: Address) -> mmap.mmap | None:
    """Return the memory of another process; None if this process may not map it."""
    process, file = address
    try:
        opened = os.open(f"/proc/{process}/fd/{file}", os.O_RDWR)
        try:
            return mmap.mmap(opened, SIZE)
        finally:
            os.close(opened)
    except (OSError, ValueError):
        return None


@dataclass(frozen=True)
class Placed:
    """A pickled value whose buffers lie in shared memory."""

    head: bytes
    places: Sequence[Place]

    @classmethod
    def of(cls, value: object, memory: mmap.mmap, place: Place) -> Self | None:
        """Copy the buffers of ``value`` to a place; None if they do not fit."""
        found: list[pickle.PickleBuffer] = []
        head = pickle.dumps(value, protocol=5, buffer_callback=found.append)
        raws, at = [buffer.raw() for buffer in found], place[0]
        places: list[Place] = []
        for raw in raws:
            places.append((at, raw.nbytes))
            at += aligned(raw.nbytes)
        if any(sum(part) > sum(place) for part in places):
            return None
        for (first, size), raw in zip(places, raws, strict=True):
            memory[first : first + size] = raw
        return cls(head, places)

    def value(self, memory: mmap.mmap) -> Any:  # noqa: ANN401 (whatever was pickled)
        """Return the value; its arrays are the places themselves, valid until used again."""
        view = memoryview(memory).toreadonly()
        buffers = [view[at : at + size] for at, size in self.places]
        return pickle.loads(self.head, buffers=buffers)


def aligned(size: int) -> int:
    """Return the bytes that a buffer takes with the gap behind it."""
    return -(-size // _ALIGNMENT) * _ALIGNMENT


class Areas:
    """Areas of a shared memory in which the driver writes records, one for each name."""

    def __init__(self) -> None:
        self._areas: dict[str, Place] = {}
        self._next = ANSWERS

    def write(self, name: str, value: object, memory: SharedMemory) -> Placed | None:
        """Write a value over the last one of this name, which nobody may read any more.

        Returns:
            What a worker needs to read the value; None if there is no room.
        """
        area = self._areas.get(name, (self._next, SIZE - self._next))
        placed = Placed.of(value, memory.bytes, area)
        if placed is not None and name not in self._areas:
            end = max((sum(place) for place in placed.places), default=self._next)
            self._areas[name] = area[0], aligned(end) - area[0]
            self._next = aligned(end)
        return placed


class AnswerPlaces:
    """Places of equal size in a shared memory, taken and given back by the driver."""

    def __init__(self) -> None:
        self._size = 0
        self._free: list[int] = []
        self._taken: dict[int, Place] = {}  # by position
        self._is_closed = False

    def begin(self, largest: int) -> None:
        """Cut the memory into places for answers of up to ``largest`` bytes; with 0, into none.

        If a place is still taken, then the last round was given up, and a worker may yet write
        there: no place is given any more.
        """
        self._is_closed |= bool(self._taken)
        size = aligned(largest) + _GAPS if largest else 0
        if self._is_closed or not size:
            self._free = []
        elif size != self._size:
            self._free = list(range(0, ANSWERS - size + 1, size))[::-1]
        self._size = size

    def take(self, position: int) -> Place | None:
        """Return a place for the job at a position, the same as before if it has one."""
        if position not in self._taken:
            if not self._free:
                return None
            self._taken[position] = self._free.pop(), self._size
        return self._taken[position]

    def give_back(self, position: int) -> None:
        """Free the place of a job, if it has one."""
        place = self._taken.pop(position, None)
        if place is not None:
            self._free.append(place[0])
