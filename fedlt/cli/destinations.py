"""Checks of output paths, before any computation, and writing of new files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from fedlt.errors import FedltError, shortened


def check_place(path: Path | None, option: str, *, is_folder: bool = False) -> None:
    """Raise unless a file at ``path``, or files in a folder, can be written.

    Args:
        path: The value of the option; None: no file is written.
        option: The name of the option.
        is_folder: True if ``path`` is a folder; missing folders are allowed.

    Raises:
        FedltError: If writing is impossible, with the option, the path and the reason.
    """
    from fedlt.config.paths import absolute

    if path is None:
        return
    found = Path(absolute(str(path), Path.cwd(), option))
    reason = ""
    if not is_folder and found.is_dir():
        reason = "it is a folder"
    folder = found if is_folder else found.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        reason = f"{folder} is not a folder"
    elif not os.access(folder, os.W_OK | os.X_OK) or folder.is_relative_to("/proc"):
        reason = f"{folder} cannot be written to"
    if reason:
        raise FedltError(f"{option}: {shortened(str(path), 300)} cannot be written: {reason}")


def write_new(contents: Mapping[Path, bytes]) -> None:
    """Write new files, or no file after an error.

    Raises:
        FedltError: If a file exists already or cannot be written.
    """
    for path in contents:
        if path.exists() or path.is_symlink():
            raise FedltError(f"{path} is there already; nothing was written")
    made: list[Path] = []
    folders: list[Path] = []
    try:
        for path, content in contents.items():
            _make_folder(path.parent, folders)
            with path.open("xb") as file:
                made.append(path)
                file.write(content)
    except BaseException as error:
        for written in made:
            written.unlink(missing_ok=True)
        for empty in folders:
            empty.rmdir()
        if isinstance(error, OSError):
            reason = error.strerror or str(error)
            raise FedltError(f"{path} cannot be written: {reason}; nothing was") from error
        raise


def _make_folder(folder: Path, made: list[Path]) -> None:
    """Make a folder and its missing parents; add them to ``made``, the deepest first."""
    if not folder.exists():
        _make_folder(folder.parent, made)
        folder.mkdir()
        made.insert(0, folder)
