"""``rounds.jsonl`` line by line, and digests of all files that a run has recorded so far.

A record is kept in a checkpoint and in a finished result, and describes the files written before:
``{"rounds": {"length": bytes, "sha256": digest of so many}, "evaluations": {file: digest}}``.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedlt.errors import FedltError
from fedlt.machine.reading import MOST_JSON, read_text
from fedlt.runs.files import HELP, ROUNDS, plain


def append_row(path: Path, row: Mapping[str, Any], run: str) -> int:
    """Append one line that names its run, synced to disk; return the new length in bytes."""
    line = json.dumps({**plain(row), "run": run}, allow_nan=False) + "\n"
    with path.open("ab") as file:
        file.write(line.encode())
        file.flush()
        os.fsync(file.fileno())
        return file.tell()


def read_rows(path: Path, run: str) -> list[dict[str, Any]]:
    """Return the rows of ``rounds.jsonl`` without the key ``run`` and without a cut-off last line.

    Raises:
        FedltError: If the file cannot be read, or has a line that is no round of this run.
    """
    try:
        lines = read_text(path, MOST_JSON).splitlines(keepends=True)
        rows: list[dict[str, Any]] = [json.loads(line) for line in lines if line[-1] == "\n"]
    except FedltError as error:
        raise FedltError(f"{error}; {HELP}") from error
    except (ValueError, RecursionError) as error:
        raise FedltError(f"{path} is damaged: a line is not JSON; {HELP}") from error
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict) or not isinstance(row.get("round"), int):
            raise FedltError(f"{path} is damaged: line {number} is no round; {HELP}")
        if row.pop("run", None) != run:
            raise FedltError(f"{path} is of another run, by its line {number}; {HELP}")
    return rows


def make_record(
    folder: Path, evaluations: Mapping[str, str], length: int | None = None
) -> dict[str, Any]:
    """Return the record of a run directory.

    Args:
        folder: The run directory.
        evaluations: The digests of its evaluations, by file.
        length: Bytes of ``rounds.jsonl`` that count; None: all.
    """
    data = (folder / ROUNDS).read_bytes()[:length]
    rounds = {"length": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    return {"rounds": rounds, "evaluations": dict(evaluations)}


def check_record(folder: Path, record: Mapping[str, Any]) -> str:
    """Return the first deviation of a run directory from its record, with the file; "" if none.

    Args:
        folder: The run directory.
        record: From :func:`make_record`.
    """
    if wrong := check_rounds(folder, record):
        return wrong
    for name, digest in record["evaluations"].items():
        path = folder / "evaluations" / name
        try:
            found = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            return f"{path}: {error.strerror}"
        if found != digest:
            return f"{path} does not match its checksum"
    return ""


def check_rounds(folder: Path, record: Mapping[str, Any], *, whole: bool = False) -> str:
    """Return the fault of ``rounds.jsonl``, "" if none; with ``whole``, added lines are a fault."""
    path, known = folder / ROUNDS, record["rounds"]
    try:
        data = path.read_bytes()
    except OSError as error:
        return f"{path}: {error.strerror}"
    length = known["length"]
    if len(data) < length or (whole and len(data) > length):
        return f"{path} has {len(data)} bytes, not {length}"
    if hashlib.sha256(data[:length]).hexdigest() != known["sha256"]:
        return f"{path} does not match its checksum"
    return ""


def cut_rounds(path: Path, length: int) -> None:
    """Cut ``rounds.jsonl`` at a recorded length; create a missing file."""
    path.touch()
    os.truncate(path, length)
