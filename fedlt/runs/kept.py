"""Kept runs: of a finished run its result and its rounds, without all other files.

    <comparison>/<row>/<seed>/result.json
    <comparison>/<row>/<seed>/rounds.jsonl

So much goes into a repository or beside a paper. The metrics of a kept run are checked against
their checksums. They cannot be cut otherwise, and no model can be opened: that needs the whole run.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from fedlt.errors import FedltError, writing
from fedlt.machine.reading import read_json
from fedlt.runs.files import CONFIG, FINGERPRINT, HELP, RESULT, ROUNDS, read_sealed
from fedlt.runs.recorded import check_rounds, read_rows

KEPT = (RESULT, ROUNDS)
VERSION = "results version"  # name of the condition that keeps versions of fedlt apart
_NEEDED = (
    "seed", "rounds", "split", "shots", "partition_hash", "final", "last_k", "selected", "record",
    "local_test", "stopped", "reference", "bytes_down", "bytes_up", "seconds",
)  # fmt: skip


def is_kept(folder: Path) -> bool:
    """Return True if a folder has a run's result, and neither configuration nor fingerprint."""
    lacking = not any((folder / name).exists() for name in (CONFIG, FINGERPRINT))
    return (folder / RESULT).is_file() and lacking


def read_kept(folder: Path) -> dict[str, Any]:
    """Return the result of a kept run, with its ``conditions`` as far as the result knows them.

    Raises:
        FedltError: If a file is missing, was changed or is of another run.
    """
    path = folder / RESULT
    found = read_sealed(path)
    if lacking := [name for name in _NEEDED if name not in found]:
        raise FedltError(f"{path} is damaged: it has no {lacking[0]}; {HELP}")
    if wrong := check_rounds(folder, found.pop("record"), whole=True):
        raise FedltError(f"{wrong}; {HELP}")
    read_rows(folder / ROUNDS, read_json(path)["run"])
    known = {"evaluate.local_test": found["local_test"], VERSION: found.get("results_version")}
    return found | {"conditions": known, "client_accuracies": None}  # clients need evaluations


def keep(run: Path, folder: Path) -> list[Path]:
    """Copy what is kept of a finished run to a folder; return the files.

    Raises:
        FedltError: If the folder has another run's files, or cannot be written.
    """
    files = [folder / name for name in KEPT]
    for file in files:
        if file.exists() and file.read_bytes() != (run / file.name).read_bytes():
            raise FedltError(f"{file} is there already and is not that of {run}; remove it first")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            shutil.copyfile(run / file.name, file)
    return files
