"""State files: the personal tensors of some clients, in one file that is never written again.

    checkpoints/personal/round_000010.0.safetensors    tensors under "<cid>/<position>/<name>"

The name says how many rounds were finished when the file was written; checkpoints refer to it by
name and checksum.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors
from torch import Tensor

from fedlt.errors import RunError
from fedlt.machine.durable import pack_tensors, sha256, write_synced


@dataclass(frozen=True)
class StateFile:
    """Name and checksum of a state file, as a checkpoint refers to the file."""

    name: str
    sha256: str
    clients: int  # number of states in the file


def write_states(
    folder: Path, states: Mapping[int, Mapping[str, Tensor]], *, round: int
) -> StateFile:
    """Write the states of several clients into a new file, synced to disk (the folder is not).

    Args:
        folder: The folder of the file; made if missing.
        states: cid -> name -> tensor.
        round: Rounds finished.
    """
    folder.mkdir(parents=True, exist_ok=True)
    data = pack_tensors(
        {
            f"{cid}/{position}/{name}": tensor
            for cid, state in states.items()
            for position, (name, tensor) in enumerate(state.items())
        }
    )
    names = (f"round_{round:06d}.{number}.safetensors" for number in itertools.count())
    name = next(name for name in names if not (folder / name).exists())
    temporary = folder / f".{name}.{os.getpid()}"
    write_synced(temporary, data)
    temporary.rename(folder / name)
    return StateFile(name, sha256(data), len(states))


def read_state(path: Path, cid: int) -> dict[str, Tensor]:
    """Return the tensors of client ``cid`` in the order written, in memory of their own.

    Raises:
        RunError: If the file is gone or was changed.
    """
    found: dict[int, tuple[str, Tensor]] = {}
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 (a file, not a dictionary)
                if key.startswith(f"{cid}/"):
                    _, position, name = key.split("/", 2)
                    found[int(position)] = (name, file.get_tensor(key).clone())
    except (OSError, safetensors.SafetensorError) as error:
        raise RunError(f"{path} cannot be read: {error}") from error
    return dict(tensor for _, tensor in sorted(found.items(), key=lambda item: item[0]))


def check_states(folder: Path, file: StateFile) -> str | None:
    """Return the fault of a state file on disk; None if the checksum is right."""
    try:
        with (folder / file.name).open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        return f"{file.name}: {error.strerror}"
    return None if found == file.sha256 else f"{file.name} does not match its checksum"
