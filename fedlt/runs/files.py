"""JSON files that name their run, and the list of files that a run directory consists of.

A sealed file has two keys beside its content: ``run``, the short hash of the run's fingerprint, and
``sha256``, the digest of all other content. So a file of another run is recognised, and so is a
file that was edited or damaged.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from fedlt.errors import FedltError
from fedlt.machine.durable import replace_synced
from fedlt.machine.reading import read_json

CONFIG, FINGERPRINT, RESULT = "config.yaml", "fingerprint.json", "result.json"
ROUNDS, PARTITION, ENVIRONMENT = "rounds.jsonl", "partition.json", "environment.json"
NAMES = "client_names.json"  # only of a run whose report may name its clients
_WHOLE = (CONFIG, FINGERPRINT, ROUNDS, PARTITION, ENVIRONMENT)  # of every run, finished or not
_SIGNS = (CONFIG, FINGERPRINT, ROUNDS, RESULT, "evaluations")  # of a run, though it is not whole
HELP = "put back a copy of it, or use name=... for a new run"  # other files are not lost


def is_run(folder: Path) -> bool:
    """Return True if a folder looks like a run directory, complete or not."""
    return any((folder / name).exists() for name in _SIGNS)


def missing(folder: Path) -> list[str]:
    """Return the files that a folder lacks to be a whole run directory."""
    return [name for name in _WHOLE if not (folder / name).is_file()]


def plain(value: Any) -> Any:  # noqa: ANN401 (a recursion over JSON values)
    """Return ``value`` for JSON: NumPy values become Python values, non-finite numbers None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON to ``path``, replacing the file atomically."""
    text = json.dumps(plain(content), indent=2, allow_nan=False)
    replace_synced(path, f"{text}\n".encode())


def _seal(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def write_sealed(path: Path, content: Mapping[str, Any], run: str) -> None:
    """Write content sealed with its run to ``path``, replacing the file atomically."""
    named = {**plain(content), "run": run}
    write_json(path, {**named, "sha256": _seal(named)})


def read_sealed(path: Path, run: str | None = None) -> dict[str, Any]:
    """Return the content of a sealed file, without its seal.

    Args:
        path: The file.
        run: The run that the file must belong to; None: any run.

    Raises:
        FedltError: If the file cannot be read, was changed, or is of another run.
    """
    try:
        content = read_json(path)
    except FedltError as error:
        raise FedltError(f"{error}; {HELP}") from error
    if not isinstance(content, dict) or "run" not in content or "sha256" not in content:
        raise FedltError(f"{path} is damaged: it does not say which run it is of; {HELP}")
    seal = content.pop("sha256")
    if seal != _seal(content):
        raise FedltError(f"{path} is damaged: it does not match its checksum; {HELP}")
    if run is not None and content["run"] != run:
        raise FedltError(f"{path} is of another run; {HELP}")
    del content["run"]
    return content


def take_lock(file: BinaryIO, path: Path) -> None:
    """Lock a file of the run directory ``path`` until it is closed.

    Raises:
        FedltError: If another process holds the lock, or the file cannot be locked.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise FedltError(f"{path} is in use: another process runs it") from None
        raise FedltError(f"{path} cannot be locked: {error.strerror}") from error
