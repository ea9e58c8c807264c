"""Safe reading of files from strangers: plain files only, up to a given size."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

from fedlt.errors import FedltError, shortened

MOST_JSON = 256 << 20  # largest JSON file in bytes: a partition of ten million images


def read_text(path: Path, most: int, *, where: str = "") -> str:
    """Return the text of a file in UTF-8.

    Args:
        path: The file. A pipe or a device, which may never end, is refused.
        most: Largest size in bytes; a larger file is refused before reading.
        where: Name of the file in the error line; by default the path.

    Raises:
        FedltError: One line that says why the file cannot be read.
    """
    where = where or shortened(str(path), 300)
    try:
        status = path.stat()
        if not stat.S_ISDIR(status.st_mode) and not stat.S_ISREG(status.st_mode):
            raise FedltError(f"{where}: is a pipe or a device; give a file")
        if status.st_size > most:
            raise FedltError(f"{where}: has {status.st_size:,} bytes; at most {most:,} are read")
        with path.open("rb") as file:  # a file of /proc has no size before it is read
            data = file.read(most + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, FedltError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise FedltError(f"{where}: cannot be read: {reason}") from error
    if len(data) > most:
        raise FedltError(f"{where}: has more than the {most:,} bytes that are read")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FedltError(f"{where}: not a text file (UTF-8)") from error


def read_json(path: Path, *, most: int = MOST_JSON, where: str = "") -> Any:  # noqa: ANN401
    """Return the content of a JSON file.

    Args:
        path: The file.
        most: Largest size of the file in bytes.
        where: Name of the file in the error line; by default the path.

    Raises:
        FedltError: One line that says why the file cannot be read.
    """
    text = read_text(path, most, where=where)
    try:
        return json.loads(text)
    except ValueError as error:
        raise FedltError(f"{where or path}: is not JSON ({error})") from error
    except RecursionError as error:
        raise FedltError(f"{where or path}: is not JSON (nested too deeply)") from error
