"""Start Ray early, quietly, on the loopback address, from a neutral working directory; or connect.

Ray puts the driver's working directory first on every worker's import path. A user's own folder
called ``strategies`` or ``clients`` there would be imported instead of ours, so the process stands
in an empty folder while Ray starts. Ray starts in a thread, while the data are prepared; all paths
that fedlt uses are absolute by then. When the process ends, so does Ray, and its files go.
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import signal
import socket
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedlt.errors import FedltError, RunError

if TYPE_CHECKING:
    from fedlt.config import EngineConfig

__all__ = ["Start", "check_address", "count_places", "count_workers", "local_workers", "start_ray"]

CONNECT_SECONDS = 3.0
END_SECONDS = 3.0  # for Ray to come up that is to be ended; else it dies with the process
_STARTED: list[Start] = []  # by this process; the last one runs


@dataclass
class Start:
    """Ray on its way up. :meth:`wait` returns when it is there."""

    done: threading.Event = field(default_factory=threading.Event)
    home: Path | None = None  # where the process stood before
    errors: list[BaseException] = field(default_factory=list)
    keep_logs: bool = False  # something went wrong: Ray's session folder stays

    @classmethod
    def done_elsewhere(cls) -> Start:
        """Return the start of a Ray that somebody else's code has started."""
        start = cls()
        start.done.set()
        return start

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
        if threading.current_thread() is threading.main_thread():
            handler = signal.getsignal(signal.SIGTERM)  # Ray has put its own in front, which aborts
            signal.signal(signal.SIGTERM, handler or signal.SIG_DFL)


def _init(start: Start, options: dict[str, Any]) -> None:
    try:
        import ray
        from ray._private import ray_constants

        # Else Ray takes a loopback address for a mistake and listens on every interface.
        ray_constants.ENABLE_RAY_CLUSTER = options["address"] != "local"
        ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
    except BaseException as error:
        start.errors.append(error)
    start.done.set()
    threading.Event().wait()  # Ray's client hangs once the thread that made it has ended


def start_ray(config: EngineConfig) -> Start:
    """Begin to start Ray, or to connect to ``engine.address``; nothing is done where it runs.

    Raises:
        FedltError: If this process is connected to another cluster than the one asked for.
    """
    os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    if ray.is_initialized():
        _check_connected(config.address)
        return _STARTED[-1] if _STARTED else Start.done_elsewhere()
    start = Start()
    _STARTED.append(start)
    options: dict[str, Any] = {"address": config.address}
    if config.address is None:
        options = {
            "address": "local",
            "num_cpus": _cores() if config.workers == "auto" else config.workers,
            "include_dashboard": False,
            "_node_ip_address": "127.0.0.1",
        }
    start.home = Path.cwd()
    folder = tempfile.mkdtemp(prefix="fedlt-")
    atexit.register(_leave, start, Path(folder))
    os.chdir(folder)
    threading.Thread(target=_init, args=(start, options), daemon=True).start()
    return start


def check_address(address: str) -> None:
    """Find out in seconds that nobody is there: Ray itself takes minutes.

    Raises:
        FedltError: If ``address`` is neither ``host:port``, where something answers, nor ``auto``.
    """
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise FedltError(f"engine.address: {address!r} is neither host:port nor auto")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise FedltError(f"engine.address: nothing answers at {address}: {reason}") from error


def _check_connected(address: str | None) -> None:
    """Raise if this process is on another cluster than the one at ``address``."""
    import ray
    from ray._private.services import canonicalize_bootstrap_address

    current = ray.get_runtime_context().gcs_address
    if address is not None and canonicalize_bootstrap_address(address) != current:
        raise FedltError(
            f"engine.address: this process is connected to Ray at {current} already, "
            f"not to {address}"
        )


def count_places(config: EngineConfig) -> int:
    """Return how many workers the nodes that are there could hold, were they all free."""
    import ray

    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return sum(_places_on(node["Resources"], config) for node in nodes if node["Alive"])


def _places_on(resources: dict[str, float], config: EngineConfig) -> int:
    needs = {"GPU": config.gpus_per_worker}
    if config.address is not None:  # on this machine Ray does not share out the cores
        needs["CPU"] = config.cpus_per_worker
    rooms = [resources.get(kind, 0) / need for kind, need in needs.items() if need > 0]
    return int(min(rooms, default=_cores()) + 1e-9)  # 1 / 0.1 may be a little less than 10


def count_workers(config: EngineConfig) -> int:
    """Return how many workers to start: those asked for, or for ``auto`` as many as have a place.

    Raises:
        FedltError: If no node could hold one.
    """
    places = count_places(config)
    if places == 0:
        raise FedltError(
            f"engine: no node has a place for a worker with engine.cpus_per_worker: "
            f"{config.cpus_per_worker:g} and engine.gpus_per_worker: {config.gpus_per_worker:g}"
        )
    if config.workers != "auto":
        return config.workers
    return max(1, min(places, local_workers(config)) if config.address is None else places)


def local_workers(config: EngineConfig) -> int:
    """Return how many workers this machine's cores give, whether Ray is up or not."""
    if config.workers != "auto":
        return config.workers
    return max(1, int(_cores() / config.cpus_per_worker))


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _leave(start: Start, folder: Path) -> None:
    """End Ray with the process, and remove what it has written unless something went wrong."""
    import ray
    from ray._common.utils import get_default_ray_temp_dir

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is saved, and this takes a moment
    if start.done.wait(END_SECONDS) and not start.errors:
        ray.shutdown()
    if not start.keep_logs:
        home: str = get_default_ray_temp_dir()  # type: ignore[no-untyped-call]
        for session in Path(home).glob(f"session_*_{os.getpid()}"):
            shutil.rmtree(session, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
