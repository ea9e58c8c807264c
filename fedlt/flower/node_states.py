"""The personal states of the client at a node of a foreign grid.

A node stores a new state when it answers, and the server may still leave the answer out: it came
too late, or was too large. So a message names the round of the client's state that is in force, and
the node keeps that state and the newest one. Flower keeps a node's context in memory only; a node
with a folder (``--node-config 'state-dir="..."'``) has its states after a restart, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors
from flwr.app import ArrayRecord, Context

from fedlt.errors import RunError
from fedlt.flower.records import array_record, tensors_of
from fedlt.machine.durable import pack_tensors, replace_synced
from fedlt.update import Tensors

_START = "personal."  # of a record's name, before the round


@dataclass(frozen=True)
class NodeStates:
    """States of one client of one run, by the round after which each was stored."""

    context: Context
    run: str  # short hash of the run's fingerprint
    cid: int
    folder: Path | None = None  # None: states are in the context

    def read(self, wanted: int) -> tuple[Tensors, int]:
        """Return the state stored in round ``wanted`` and that round.

        If the state is gone, the result is the newest state before it; ({}, 0) if there is none. A
        client that never stored a state has round 0.
        """
        rounds = [round_ for round_ in self._rounds() if round_ <= wanted]
        if not rounds:
            return {}, 0
        found = max(rounds)
        return self._load(found), found

    def keep(self, tensors: Tensors, round_: int, *, wanted: int) -> None:
        """Store the state of round ``round_``; all states but this one and ``wanted``'s go.

        Args:
            tensors: The state; copied.
            round_: The round that made it.
            wanted: The round of the state that is in force until the server says otherwise.
        """
        own = {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
        self._save(own, round_)
        for old in self._rounds():
            if old not in (round_, wanted):
                self._remove(old)

    def _path(self, round_: int) -> Path:
        assert self.folder is not None
        return self.folder / f"{self.run}-{self.cid}" / f"{round_}.safetensors"

    def _rounds(self) -> list[int]:
        if self.folder is not None:
            found = self._path(0).parent.glob("*.safetensors")
            return [int(path.stem) for path in found if path.stem.isdecimal()]
        start = f"{_START}{self.run}."
        names = [name for name in self.context.state if name.startswith(start)]
        return [int(name.removeprefix(start)) for name in names]

    def _name(self, round_: int) -> str:
        return f"{_START}{self.run}.{round_}"

    def _load(self, round_: int) -> Tensors:
        if self.folder is not None:
            return _read_file(self._path(round_))
        record = self.context.state[self._name(round_)]
        assert isinstance(record, ArrayRecord)
        return tensors_of(record)

    def _save(self, tensors: Mapping[str, object], round_: int) -> None:
        if self.folder is None:
            self.context.state[self._name(round_)] = array_record(tensors)  # type: ignore[arg-type]
            return
        path = self._path(round_)
        path.parent.mkdir(parents=True, exist_ok=True)
        numbered = {f"{place}/{name}": t for place, (name, t) in enumerate(tensors.items())}
        replace_synced(path, pack_tensors(numbered))  # type: ignore[arg-type]

    def _remove(self, round_: int) -> None:
        if self.folder is None:
            del self.context.state[self._name(round_)]
        else:
            self._path(round_).unlink(missing_ok=True)


def _read_file(path: Path) -> Tensors:
    """Return the tensors of a state file in the order written.

    Raises:
        RunError: If the file cannot be read.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            keys = sorted(file.keys(), key=lambda key: int(key.partition("/")[0]))
            return {key.partition("/")[2]: file.get_tensor(key).clone() for key in keys}
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise RunError(f"{path}: the personal state cannot be read: {error}") from error
