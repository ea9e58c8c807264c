"""Checks of output paths, before any computation."""

from __future__ import annotations

import os
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
