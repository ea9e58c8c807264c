"""Places to write to, looked at before anything is computed for them."""

from __future__ import annotations

import os
from pathlib import Path

from fedlt.errors import FedltError, shortened


def check_place(path: Path | None, option: str, *, is_folder: bool = False) -> None:
    """Raise unless a file, or files in a folder, can be written there.

    Args:
        path: What the option says; None: nothing is written.
        option: Its name.
        is_folder: Whether ``path`` is a folder; it and those above it may be missing.

    Raises:
        FedltError: It names the option, the path and the reason.
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
