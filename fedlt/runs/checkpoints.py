"""Checkpoints: folders of safetensors and JSON, checksummed, written whole or not at all.

    checkpoints/round_000010/
        tensors.safetensors    every tensor under "<number of its group>/<name>"
        checkpoint.json        format, run, round, the groups' names in order, the state files,
                               the caller's meta
        SHA256SUMS             of both, as `sha256sum -c` reads it
    checkpoints/personal/      personal tensors, written when they change: state_files.py

A folder is written under a temporary name, synced to disk and renamed; the last two are kept, and
with the state files that they name. When the newest checkpoint or one of its state files is
damaged, or of another run, the checkpoint before is used, with a warning. Nothing is unpickled.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from fedlt.errors import FedltError
from fedlt.machine.durable import pack_tensors, sha256, sync_folder, write_synced
from fedlt.runs.files import HELP
from fedlt.runs.state_files import StateFile, check_states

FORMAT = 4  # raise with every change of the saved content
_KEPT = 2
_TENSORS, _META, _SUMS = "tensors.safetensors", "checkpoint.json", "SHA256SUMS"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """State of a run, saved after one round."""

    round: int  # rounds finished
    tensors: dict[str, dict[str, Tensor]]  # group -> name -> tensor, in the order saved
    meta: dict[str, Any]  # JSON values
    files: tuple[StateFile, ...] = ()  # whose checksums were found right


class _DamagedError(Exception):
    """Error: a checkpoint cannot be read."""


def state_folder(folder: Path) -> Path:
    """Return the folder of the state files that belong to a ``checkpoints`` folder."""
    return folder / "personal"


def save_checkpoint(
    folder: Path,
    *,
    round: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    meta: Mapping[str, Any],
    files: Sequence[StateFile] = (),
    run: str = "",
) -> Path:
    """Write the state after ``round`` under ``folder`` and return its path.

    The two newest are kept. Later rounds, which a resumed run has left behind, are removed, and
    so are state files that neither of the two names.

    Args:
        folder: The run's ``checkpoints`` folder; made if missing.
        round: Rounds finished.
        tensors: Group -> name -> tensor, of any dtype, memory format or sharing.
        meta: JSON values with text keys.
        files: The state files that the checkpoint needs; they lie in :func:`state_folder`.
        run: The short hash of the run's fingerprint.
    """
    groups = {group: list(named) for group, named in tensors.items()}
    known = [asdict(file) for file in files]
    content = {"format": FORMAT, "run": run, "round": round, "groups": groups, "files": known}
    text = json.dumps({**content, "meta": dict(meta)})
    flat = {
        f"{number}/{name}": tensor
        for number, named in enumerate(tensors.values())
        for name, tensor in named.items()
    }
    parts = {_TENSORS: pack_tensors(flat), _META: text.encode()}
    sums = "".join(f"{sha256(data)}  {name}\n" for name, data in parts.items())
    final = folder / f"round_{round:06d}"
    temporary = folder / f".{final.name}.{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for name, data in {**parts, _SUMS: sums.encode()}.items():
        write_synced(temporary / name, data)
    sync_folder(temporary)
    if files:
        sync_folder(state_folder(folder))
    if final.exists():
        _remove(final)
    temporary.rename(final)
    sync_folder(folder)
    _prune(folder, round)
    return final


def load_checkpoint(
    folder: Path,
    *,
    run: str | None = None,
    check: Callable[[Checkpoint], str] | None = None,
) -> Checkpoint | None:
    """Return the newest usable checkpoint; None where no checkpoint was ever saved.

    Args:
        folder: The run's ``checkpoints`` folder.
        run: The short hash of the run that the checkpoint must belong to; None: any run.
        check: Returns a further reason why a checkpoint cannot be used; "" if there is none.

    Raises:
        FedltError: If there are checkpoints and no checkpoint can be used.
    """
    found = sorted(_saved(folder), reverse=True)
    damaged: dict[str, list[str]] = {}  # reason -> checkpoints
    for number, path in found:
        try:
            checkpoint = _read(path, run)
            if check is not None and (wrong := check(checkpoint)):
                raise _DamagedError(wrong)
        except _DamagedError as error:
            damaged.setdefault(str(error), []).append(str(path))
        else:
            for reason in _reasons(damaged):
                _LOG.warning("checkpoint %s; going on from round %d", reason, number)
            return checkpoint
    if damaged:
        raise FedltError(f"no checkpoint can be used: {'; '.join(_reasons(damaged))}; {HELP}")
    return None


def newest_round(folder: Path) -> int | None:
    """Return the round of the newest checkpoint, also a damaged one; None without checkpoints."""
    return max((number for number, _ in _saved(folder)), default=None)


def _reasons(damaged: Mapping[str, Sequence[str]]) -> list[str]:
    return [f"{' and '.join(paths)} cannot be used ({why})" for why, paths in damaged.items()]


def _read(path: Path, run: str | None) -> Checkpoint:
    try:
        sums = (path / _SUMS).read_bytes().decode("ascii")
        files = {name: (path / name).read_bytes() for name in (_TENSORS, _META)}
    except (OSError, UnicodeDecodeError) as error:
        raise _DamagedError(_unreadable(error)) from error
    for name, data in files.items():
        if f"{sha256(data)}  {name}\n" not in sums.splitlines(keepends=True):
            raise _DamagedError(f"{name} does not match its checksum")
    try:
        content = json.loads(files[_META])
        if content.get("format") != FORMAT:
            raise _DamagedError("written by another version of fedlt")
        if run is not None and content["run"] != run:
            raise _DamagedError("it is of another run")
        return _parse(path.parent, content, safetensors.torch.load(files[_TENSORS]))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _DamagedError("its fields are not those of a checkpoint") from error


def _unreadable(error: OSError | UnicodeDecodeError) -> str:
    if isinstance(error, OSError):
        return f"{Path(error.filename or _META).name}: {error.strerror}"
    return f"{_SUMS} is unreadable"


def _parse(folder: Path, content: dict[str, Any], flat: dict[str, Tensor]) -> Checkpoint:
    states = tuple(StateFile(**entry) for entry in content["files"])
    for file in states:
        if wrong := check_states(state_folder(folder), file):
            raise _DamagedError(wrong)
    tensors = {
        group: {name: flat[f"{number}/{name}"] for name in names}
        for number, (group, names) in enumerate(content["groups"].items())
    }
    return Checkpoint(content["round"], tensors, content["meta"], states)


def _saved(folder: Path) -> Iterator[tuple[int, Path]]:
    """Yield round and path of every checkpoint."""
    for path in folder.glob("round_*"):
        if match := re.fullmatch(r"round_(\d{6,})", path.name):
            yield int(match[1]), path


def _prune(folder: Path, newest: int) -> None:
    """Remove all but the last two checkpoints and the state files that they name."""
    found = sorted(_saved(folder))
    kept = [path for number, path in found if number <= newest][-_KEPT:]
    for _, path in found:
        if path not in kept:
            _remove(path)
    clean(folder)


def clean(folder: Path) -> None:
    """Remove leftovers of a killed process: half a checkpoint, state files of no checkpoint."""
    for path in folder.glob(".round_*"):
        shutil.rmtree(path, ignore_errors=True)
    named = {name for _, path in _saved(folder) for name in _named_files(path)}
    for path in state_folder(folder).glob("*"):
        if path.name not in named:
            path.unlink(missing_ok=True)


def _remove(path: Path) -> None:
    """Remove a checkpoint: first rename the folder, so that half a checkpoint is never read."""
    hidden = path.with_name(f".{path.name}.{os.getpid()}.old")
    shutil.rmtree(hidden, ignore_errors=True)
    path.rename(hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def _named_files(path: Path) -> set[str]:
    """Return the names of a checkpoint's state files; none where it is damaged."""
    try:
        content = json.loads((path / _META).read_bytes())
        return {entry["name"] for entry in content["files"]}
    except (OSError, ValueError, LookupError, TypeError):
        return set()
