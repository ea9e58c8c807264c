"""Peak resident memory of this process, as Linux counts it (proc(5): VmHWM, clear_refs)."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

_PROCESS = Path("/proc/self")


def reset_peak_memory() -> None:
    """Reset the peak to the memory in use now; no effect where the system refuses."""
    with suppress(OSError):
        (_PROCESS / "clear_refs").write_text("5")


def peak_memory() -> int | None:
    """Return the peak resident memory in bytes; None where the system does not count it."""
    try:
        lines = (_PROCESS / "status").read_text().splitlines()
    except OSError:
        return None
    found = [line.split() for line in lines if line.startswith("VmHWM:")]
    return 1024 * int(found[0][1]) if found else None
