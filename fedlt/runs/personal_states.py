"""Personal states: clients' tensors kept between rounds, in memory up to a budget, else on disk.

    stage     a task's result has arrived       the state may be dropped again
    commit    the round counts                  the state of these clients is the staged one
    flush     a checkpoint will refer to them   states that are in memory only are written

A client that never took part has no state. States over the budget go to state files, those that
were not used for longest first; a state that is on disk already is only dropped from memory. When
most states of a file are out of date, the others move to a new file with the next flush.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fedlt.runs.state_files import StateFile, read_state, write_states
from fedlt.update import Tensors

FILE_BYTES = 64 * 2**20  # of tensors in one state file, unless one client has more
FILE_TENSORS = 1024  # likewise: reading one client's state reads the names of a whole file
MIB = 2**20


@dataclass(eq=False)
class _File:
    """State file with the number of its states that are still used."""

    known: StateFile
    used: int
    saved: bool = False  # a checkpoint may name it

    def is_stale(self) -> bool:
        """Return True if most states of the file are out of date."""
        return 2 * self.used < self.known.clients


@dataclass(eq=False)
class _Entry:
    """Personal state of one client: in memory, in a file, or in both."""

    cid: int
    tensors: Tensors | None = None
    file: _File | None = None


@dataclass(frozen=True)
class Snapshot:
    """Places of the committed states on disk, for a checkpoint."""

    files: tuple[StateFile, ...]
    table: Tensors  # "cid" (P,), in the order of the first commits; "file" (P,), of ``files``


class PersonalStates(Mapping[int, Tensors]):
    """Committed states by cid, read only, in the order of the clients' first commits."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._budget = 0
        self._round = 0  # rounds committed
        self._committed: dict[int, _Entry] = {}
        self._staged: dict[int, _Entry] = {}
        self._resident: dict[_Entry, int] = {}  # bytes in memory, the entry not used longest first
        self._bytes = 0

    def spill_to(self, folder: Path, mib: int) -> None:
        """Keep at most ``mib`` MiB in memory from now on; without this call there is no limit."""
        self._folder, self._budget = folder, mib * MIB

    def __getitem__(self, cid: int) -> Tensors:
        entry = self._committed[cid]
        tensors = self._load(entry)
        self._keep(entry, tensors)
        return tensors

    def __iter__(self) -> Iterator[int]:
        return iter(self._committed)

    def __len__(self) -> int:
        return len(self._committed)

    def stage(self, cid: int, tensors: Mapping[str, Tensor]) -> None:
        """Stage the state that a client's task left; tensors that share memory are copied."""
        self._drop(self._staged.pop(cid, None))
        entry = self._staged[cid] = _Entry(cid)
        self._keep(entry, {name: _owned(tensor) for name, tensor in tensors.items()})

    def commit(self, cids: Iterable[int]) -> None:
        """Commit the staged states of these clients; forget the other staged states."""
        for cid in cids:
            entry = self._staged.pop(cid, None)
            if entry is not None:
                self._drop(self._committed.get(cid))
                self._committed[cid] = entry
        self.discard()
        self._round += 1

    def discard(self) -> None:
        """Forget all staged states."""
        for entry in self._staged.values():
            self._drop(entry)
        self._staged.clear()

    def flush(self) -> Snapshot:
        """Write the states that are in memory only, and return the places of all states."""
        self.discard()
        entries = list(self._committed.values())
        self._write([entry for entry in entries if entry.file is None or entry.file.is_stale()])
        files = list(dict.fromkeys(entry.file for entry in entries if entry.file is not None))
        for file in files:
            file.saved = True
        number = {file: position for position, file in enumerate(files)}
        places = [number[entry.file] for entry in entries if entry.file is not None]
        table = {"cid": list(self._committed), "file": places}
        tensors = {n: torch.tensor(values, dtype=torch.int64) for n, values in table.items()}
        return Snapshot(tuple(file.known for file in files), tensors)

    def restore(self, snapshot: Snapshot, *, round: int) -> None:
        """Restore the states of a checkpoint; each state stays on disk until it is read."""
        files = [_File(known, used=0, saved=True) for known in snapshot.files]
        self._committed, self._staged, self._resident = {}, {}, {}
        self._bytes, self._round = 0, round
        table = (snapshot.table[name].tolist() for name in ("cid", "file"))
        for cid, place in zip(*table, strict=True):
            self._committed[cid] = _Entry(cid, file=files[place])
            files[place].used += 1

    def _load(self, entry: _Entry) -> Tensors:
        if entry.tensors is not None:
            return entry.tensors
        assert entry.file is not None
        assert self._folder is not None
        return read_state(self._folder / entry.file.known.name, entry.cid)

    def _keep(self, entry: _Entry, tensors: Tensors) -> None:
        """Hold a state in memory as the most recently used, and make room for it."""
        self._release(entry)
        entry.tensors = tensors
        self._resident[entry] = _size(tensors)
        self._bytes += self._resident[entry]
        if self._folder is not None and self._bytes > self._budget:
            self._make_room(self._budget // 4 * 3)

    def _make_room(self, goal: int) -> None:
        """Reduce the memory to ``goal`` bytes; states without a copy on disk are written first."""
        excess = self._bytes - goal
        before = itertools.accumulate(self._resident.values(), initial=0)
        order = zip(self._resident, before, strict=False)  # and the bytes that leave before each
        leaving = [entry for entry, freed in order if freed < excess]
        self._write([entry for entry in leaving if entry.file is None])
        for entry in leaving:
            self._release(entry)

    def _release(self, entry: _Entry) -> None:
        self._bytes -= self._resident.pop(entry, 0)
        entry.tensors = None

    def _drop(self, entry: _Entry | None) -> None:
        """Drop a state that is out of date."""
        if entry is not None:
            self._release(entry)
            self._forget_file(entry)

    def _forget_file(self, entry: _Entry) -> None:
        """Forget an entry's place on disk; remove a file of which no state is used any more."""
        file, entry.file = entry.file, None
        if file is not None:
            file.used -= 1
            if file.used == 0 and not file.saved and self._folder is not None:
                (self._folder / file.known.name).unlink(missing_ok=True)

    def _write(self, entries: Iterable[_Entry]) -> None:
        """Write states to new files, whether they lie in memory or in a file so far."""
        piece: dict[int, tuple[_Entry, Tensors]] = {}
        size = count = 0
        for entry in entries:
            tensors = self._load(entry)
            size, count = size + _size(tensors), count + len(tensors)
            full = size > FILE_BYTES or count > FILE_TENSORS
            if piece and (full or entry.cid in piece):  # a staged state beside a committed one
                self._write_file(piece)
                piece, size, count = {}, _size(tensors), len(tensors)
            piece[entry.cid] = (entry, tensors)
        if piece:
            self._write_file(piece)

    def _write_file(self, piece: Mapping[int, tuple[_Entry, Tensors]]) -> None:
        assert self._folder is not None
        states = {cid: tensors for cid, (_, tensors) in piece.items()}
        file = _File(write_states(self._folder, states, round=self._round), len(piece))
        for entry, _ in piece.values():
            self._forget_file(entry)
            entry.file = file


def _size(tensors: Mapping[str, Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())


def _owned(tensor: Tensor) -> Tensor:
    """Return a tensor with memory of its own: not shared, not mapped from another process."""
    dense = tensor.detach().contiguous()
    storage = dense.untyped_storage()
    alone = storage.resizable() and storage.nbytes() == dense.nbytes
    return dense if alone else dense.clone()
