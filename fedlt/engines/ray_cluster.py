"""Start Ray early, quietly, and from a neutral working directory.

Ray puts the driver's working directory first on every worker's import path. A user's own folder
called ``strategies`` or ``clients`` there would be imported instead of ours, so the process stands
in an empty folder while Ray starts. Ray starts in a thread, while the data are prepared; all paths
that fedlt uses are absolute by then.
"""

from __future__ import annotations

import logging
import os
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedlt.errors import RunError

__all__ = ["Start", "start_ray"]


@dataclass
class Start:
    """Ray on its way up. :meth:`wait` returns when it is there."""

    done: threading.Event = field(default_factory=threading.Event)
    home: Path | None = None  # where the process stood before
    errors: list[BaseException] = field(default_factory=list)

    def wait(self) -> None:
        """Wait for Ray, and go back to the working directory.

        Raises:
            RunError: If Ray failed.
        """
        self.done.wait()
        if self.home is not None:
            os.chdir(self.home)
            self.home = None
        if self.errors:
            reason = str(self.errors[0]).strip().partition("\n")[0]
            raise RunError(f"Ray does not start: {reason}") from self.errors[0]


def _init(start: Start, options: dict[str, Any]) -> None:
    try:
        import ray

        ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
    except BaseException as error:
        start.errors.append(error)
    start.done.set()
    threading.Event().wait()  # Ray's client hangs once the thread that made it has ended


def start_ray(workers: int, address: str | None = None) -> Start:
    """Begin to start Ray, or do nothing where it runs already.

    Args:
        workers: Worker processes to start on this machine.
        address: A running cluster to connect to instead.
    """
    os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    start = Start()
    if ray.is_initialized():
        start.done.set()
        return start
    options: dict[str, Any] = {"address": address}
    if address is None:
        options = {
            "num_cpus": workers,
            "include_dashboard": False,
            "_node_ip_address": "127.0.0.1",
        }
    start.home = Path.cwd()
    os.chdir(tempfile.mkdtemp(prefix="fedlt-"))
    threading.Thread(target=_init, args=(start, options), daemon=True).start()
    return start
