"""Memory that an engine shares with workers of its own machine, for models and answers to jobs.

Ray's object store takes milliseconds for an object of a megabyte; in memory that both processes
have mapped it is one copy. The memory has no name in any file system: a worker opens it by the
driver's process and file descriptor, and it is freed when no process maps it any more. The driver
says where everything goes. What has no room travels through Ray.

    0 .. ANSWERS         slots of equal size, one a job, for the workers to write
    ANSWERS .. SIZE      areas, one for each name, for the driver to write
"""

from __future__ import annotations

import mmap
import os
import pickle
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, Self

SIZE = 512 * 2**20  # bytes; pages cost memory once they are used
ANSWERS = SIZE // 2  # bytes for answers
_ALIGNMENT = 64  # bytes: a buffer begins on a cache line
_GAPS = 2**16  # bytes of a slot for the gaps between buffers

Slot = tuple[int, int]  # first byte, and bytes


class Address(NamedTuple):
    """Where a process finds the memory, and how it knows that memory from another."""

    process: int
    file: int  # file descriptor of the process
    device: int
    inode: int


class SharedMemory:
    """Memory of this process, for others of this machine to map, until :meth:`close`."""

    def __init__(self) -> None:
        self._file = os.memfd_create("fedlt")
        os.ftruncate(self._file, SIZE)
        found = os.fstat(self._file)
        self.address = Address(os.getpid(), self._file, found.st_dev, found.st_ino)
        self.bytes = mmap.mmap(self._file, SIZE)

    @classmethod
    def make(cls) -> Self | None:
        """Return new memory, or None where the system has none of this kind."""
        try:
            return cls()
        except (AttributeError, OSError):
            return None

    def close(self) -> None:
        """Let go of the memory; what was read from it in this process stays valid."""
        os.close(self._file)
        with suppress(BufferError):  # arrays lie there; their end is the memory's
            self.bytes.close()


@lru_cache(maxsize=1)
def open_memory(address: Address) -> mmap.mmap | None:
    """Return the memory of another process; None if this process cannot map it."""
    try:
        opened = os.open(f"/proc/{address.process}/fd/{address.file}", os.O_RDWR)
    except OSError:
        return None
    try:
        found = os.fstat(opened)
        if (found.st_dev, found.st_ino) != (address.device, address.inode):
            return None  # of another machine or container
        return mmap.mmap(opened, SIZE)
    except (OSError, ValueError):
        return None
    finally:
        os.close(opened)


@dataclass(frozen=True)
class SharedValue:
    """A pickled value whose buffers lie in shared memory."""

    head: bytes
    buffers: Sequence[Slot]

    @classmethod
    def of(cls, value: object, memory: mmap.mmap, slot: Slot) -> Self | None:
        """Copy the buffers of ``value`` into a slot; None, and nothing copied, if it is small."""
        found: list[pickle.PickleBuffer] = []
        head = pickle.dumps(value, protocol=5, buffer_callback=found.append)
        raws, at = [buffer.raw() for buffer in found], slot[0]
        buffers: list[Slot] = []
        for raw in raws:
            buffers.append((at, raw.nbytes))
            at += aligned(raw.nbytes)
        if any(sum(part) > sum(slot) for part in buffers):
            return None
        for (first, size), raw in zip(buffers, raws, strict=True):
            memory[first : first + size] = raw
        return cls(head, buffers)

    def value(self, memory: mmap.mmap) -> Any:  # noqa: ANN401 (whatever was pickled)
        """Return the value; its arrays lie in the memory, valid until they are overwritten."""
        view = memoryview(memory).toreadonly()
        buffers = [view[at : at + size] for at, size in self.buffers]
        return pickle.loads(self.head, buffers=buffers)


def aligned(size: int) -> int:
    """Return the bytes that a buffer takes with the gap behind it."""
    return -(-size // _ALIGNMENT) * _ALIGNMENT


class Areas:
    """Areas in which the driver writes records, one for each name."""

    def __init__(self) -> None:
        self._areas: dict[str, Slot] = {}
        self._next = ANSWERS

    def write(self, name: str, value: object, memory: SharedMemory) -> SharedValue | None:
        """Write a value over the last one of this name, which nobody may read any more.

        A value that is larger than the last one gets a new area.

        Returns:
            What a worker needs to read the value; None if there is no room.
        """
        held = self._areas.get(name)
        stored = None if held is None else SharedValue.of(value, memory.bytes, held)
        if stored is None:
            area = (self._next, SIZE - self._next)
            stored = SharedValue.of(value, memory.bytes, area)
            if stored is not None:
                self._next = aligned(max((sum(b) for b in stored.buffers), default=area[0]))
                self._areas[name] = area[0], self._next - area[0]
        return stored


class AnswerSlots:
    """Slots of equal size, taken and given back by the driver."""

    def __init__(self) -> None:
        self._size = 0
        self._free: list[int] = []
        self._taken: dict[int, Slot] = {}  # by position
        self._is_closed = False

    def begin(self, largest: int) -> None:
        """Cut the memory into slots for answers of up to ``largest`` bytes; with 0, into none.

        If a slot is still taken, then the last list of jobs was given up, and a worker may yet
        write there: no slot is given any more.
        """
        self._is_closed |= bool(self._taken)
        size = aligned(largest) + _GAPS if largest else 0
        if self._is_closed or not size:
            self._free = []
        elif size != self._size:
            self._free = list(range(0, ANSWERS - size + 1, size))[::-1]
        self._size = size

    def take(self, position: int) -> Slot | None:
        """Return a slot for the job at a position, the same as before if it has one."""
        if position not in self._taken:
            if not self._free:
                return None
            self._taken[position] = self._free.pop(), self._size
        return self._taken[position]

    def give_back(self, position: int) -> None:
        """Free the slot of a job, if it has one."""
        slot = self._taken.pop(position, None)
        if slot is not None:
            self._free.append(slot[0])
