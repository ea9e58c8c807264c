"""The installed version of fedlt."""

from __future__ import annotations


def installed_version() -> str:
    """Return the version of the installed fedlt; ``"unknown"`` where fedlt is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("fedlt")
    except PackageNotFoundError:
        return "unknown"
