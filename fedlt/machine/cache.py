"""The user's cache directory. Its files only save time and may be removed at any moment."""

from __future__ import annotations

import os
from pathlib import Path


def cache_directory() -> Path:
    """Return the user's cache directory, ``$FEDLT_CACHE`` or ``~/.cache/fedlt``, existing or not.

    Raises:
        RuntimeError: If the user has no home directory.
    """
    given = os.environ.get("FEDLT_CACHE")
    return Path(given).expanduser() if given else Path.home() / ".cache" / "fedlt"
