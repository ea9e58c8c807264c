"""fedlt: a federated long-tail learning simulator. Start reading at ``fedlt.simulate``.

Flower posts telemetry and Ray usage statistics by default, and both read their switch on import.
They are switched off here, before anything of fedlt imports them, unless the user has set them.
"""

from __future__ import annotations

import os

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


def __getattr__(name: str) -> str:
    """Return ``fedlt.__version__``; ``"unknown"`` where fedlt is used without being installed.

    The version is read when it is asked for, so that ``import fedlt`` stays cheap.

    Raises:
        AttributeError: For every other name.
    """
    if name != "__version__":
        raise AttributeError(f"module 'fedlt' has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("fedlt")
    except PackageNotFoundError:
        return "unknown"
