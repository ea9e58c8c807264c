"""Checkpoints: folders of safetensors and JSON, checksummed, written whole or not at all.

    checkpoints/round_000010/
        tensors.safetensors    every tensor under "<number of its group>/<name>"
        checkpoint.json        round, the groups' names in order, and the caller's meta
        SHA256SUMS             of both, as `sha256sum -c` reads it

A folder is written under a temporary name, synced to disk and renamed; the last two are kept.
When the newest is damaged, the one before is used, with a warning. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from fedlt.errors import FedltError

__all__ = ["Checkpoint", "load_checkpoint", "save_checkpoint"]

_KEPT = 2
_TENSORS, _META, _SUMS = "tensors.safetensors", "checkpoint.json", "SHA256SUMS"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """What was saved after one round."""

    round: int  # rounds finished
    tensors: dict[str, dict[str, Tensor]]  # group -> name -> tensor, in the order saved
    meta: dict[str, Any]  # JSON values


class _DamagedError(Exception):
    """One checkpoint cannot be read."""


def save_checkpoint(
    folder: Path,
    *,
    round: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    meta: Mapping[str, Any],
) -> Path:
    """Write the state after ``round`` under ``folder`` and return its path.

    The two newest are kept. Later rounds, which a resumed run has left behind, are removed.

    Args:
        folder: The run's ``checkpoints`` folder; made if missing.
        round: Rounds finished.
        tensors: Group -> name -> tensor, of any dtype, memory format or sharing.
        meta: JSON values with text keys.
    """
    groups = {group: list(named) for group, named in tensors.items()}
    text = json.dumps({"round": round, "groups": groups, "meta": dict(meta)})
    files = {
        _TENSORS: safetensors.torch.save(_dense(tensors)),
        _META: text.encode(),
    }
    sums = "".join(f"{_sha256(data)}  {name}\n" for name, data in files.items())
    final = folder / f"round_{round:06d}"
    temporary = folder / f".{final.name}.{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for name, data in {**files, _SUMS: sums.encode()}.items():
        _write_synced(temporary / name, data)
    _sync_folder(temporary)
    if final.exists():
        shutil.rmtree(final)
    temporary.rename(final)
    _sync_folder(folder)
    _prune(folder, round)
    return final


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """Return the newest checkpoint that can be read; None where none was ever saved.

    Raises:
        FedltError: If there are checkpoints and every one is damaged.
    """
    found = sorted(_saved(folder), reverse=True)
    damaged: list[str] = []
    for number, path in found:
        try:
            checkpoint = _read(path)
        except _DamagedError as error:
            damaged.append(f"{path} is damaged ({error})")
        else:
            for reason in damaged:
                _LOG.warning("checkpoint %s; going on from round %d", reason, number)
            return checkpoint
    if damaged:
        reasons = "; ".join(damaged)
        raise FedltError(f"no checkpoint can be read: {reasons}; --overwrite starts again")
    return None


def _dense(tensors: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return every tensor contiguous, on the CPU, and with memory of its own."""
    dense: dict[str, Tensor] = {}
    seen: set[int] = set()
    for number, named in enumerate(tensors.values()):
        for name, value in named.items():
            tensor = value.detach().cpu().contiguous()
            address = tensor.untyped_storage().data_ptr()
            dense[f"{number}/{name}"] = tensor.clone() if address in seen else tensor
            seen.add(address)
    return dense


def _read(path: Path) -> Checkpoint:
    try:
        sums = (path / _SUMS).read_bytes().decode("ascii")
        files = {name: (path / name).read_bytes() for name in (_TENSORS, _META)}
    except (OSError, UnicodeDecodeError) as error:
        raise _DamagedError(getattr(error, "strerror", None) or "unreadable") from error
    for name, data in files.items():
        if f"{_sha256(data)}  {name}\n" not in sums.splitlines(keepends=True):
            raise _DamagedError(f"{name} does not match its checksum")
    content = json.loads(files[_META])
    flat = safetensors.torch.load(files[_TENSORS])
    tensors = {
        group: {name: flat[f"{number}/{name}"] for name in names}
        for number, (group, names) in enumerate(content["groups"].items())
    }
    return Checkpoint(round=content["round"], tensors=tensors, meta=content["meta"])


def _saved(folder: Path) -> Iterator[tuple[int, Path]]:
    """Yield round and path of every checkpoint."""
    for path in folder.glob("round_*"):
        if match := re.fullmatch(r"round_(\d{6,})", path.name):
            yield int(match[1]), path


def _prune(folder: Path, newest: int) -> None:
    found = sorted(_saved(folder))
    older = [path for number, path in found if number <= newest]
    stale = [path for number, path in found if number > newest]
    for path in [*older[:-_KEPT], *stale, *folder.glob(".round_*")]:
        shutil.rmtree(path, ignore_errors=True)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
