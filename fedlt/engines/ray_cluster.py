"""Start Ray early, quietly, on the loopback address; or connect.

Ray puts the driver's working directory on every worker's import path. A user's own folder called
``strategies`` or ``clients`` there would be imported instead of ours, so :class:`_Job` leaves that
directory out. Ray's processes stand in Ray's own folder, since no process starts from a directory
that a user has removed. Ray starts in a thread, while the data are prepared, and its idle processes
import torch and Flower at once. When the process ends, Ray ends and its files are removed. A dead
server of the local Ray would end this process too; :meth:`Start.check` finds the server first.
"""

from __future__ import annotations

import atexit
import logging
import os
import select
import signal
import socket
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from fedlt.engines.ray_crew import Crew
from fedlt.engines.ray_home import RayHome, children_of, command_of, end_processes, make_home
from fedlt.errors import FedltError, RunError, StoppedError

if TYPE_CHECKING:
    from fedlt.config import EngineConfig

CONNECT_SECONDS = 3.0
END_SECONDS = 15.0  # to wait for a starting Ray before ending Ray; else Ray dies with the process
NOTICE_SECONDS = 10.0  # for a run to see that Ray has stopped
CONTROL = "control service"  # GCS in Ray's words
PRELOADED = "torch,flwr.app,flwr.clientapp"  # what takes longest of a worker's imports
_STARTED: list[Start] = []  # by this process; the last start runs


@dataclass
class Start:
    """A start of Ray. :meth:`wait` returns when Ray is up."""

    done: threading.Event = field(default_factory=threading.Event)
    address: str | None = None  # of the cluster; None for a Ray of this process
    errors: list[BaseException] = field(default_factory=list)
    keep_logs: bool = False  # something went wrong: Ray's session folder stays
    folder: RayHome | None = None  # folder of Ray's sockets and logs
    servers: dict[int, str] = field(default_factory=dict)  # local servers: names by process
    broken: str = ""  # the server that has ended
    ending: bool = False  # True while the servers are being ended
    noticed: threading.Event = field(default_factory=threading.Event)  # by the run
    crew: Crew = field(default_factory=Crew)  # actors for the next run

    @classmethod
    def done_elsewhere(cls) -> Start:
        """Return the start of a Ray that code outside fedlt has started."""
        start = cls()
        start.watch()
        start.done.set()
        return start

    def wait(self) -> None:
        """Wait for Ray, and give SIGTERM back its handler if Ray has taken it.

        Raises:
            RunError: If Ray failed.
        """
        self.done.wait()
        if self.errors:
            reason = str(self.errors[0]).strip().partition("\n")[0]
            raise RunError(f"Ray does not start: {reason}") from self.errors[0]
        if threading.current_thread() is threading.main_thread():
            handler = signal.getsignal(signal.SIGTERM)  # Ray's own handler aborts the process
            signal.signal(signal.SIGTERM, handler or signal.SIG_DFL)

    def check(self) -> None:
        """Raise if Ray has stopped; called before every Ray call that could hang or crash.

        Raises:
            StoppedError: If a server of the local Ray has ended.
        """
        if self.broken:
            self.noticed.set()
            raise StoppedError(f"Ray has stopped: its {self.broken} has ended")

    def watch(self) -> None:
        """Find the servers, and watch them in a thread of their own."""
        self.servers = _find_servers()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        """Wait for the first server that ends, and keep the other servers from ending this process.

        The other servers would notify Ray's threads in this process, which then end the process.
        Servers that are stopped by a signal notify nobody, so a run has time to save. A run that is
        caught inside a call of Ray cannot save, and ends.
        """
        found = select.poll()
        names: dict[int, str] = {}
        for pid, name in self.servers.items():
            with suppress(OSError, AttributeError):  # the server has ended; or not on Linux
                number = os.pidfd_open(pid)
                names[number] = name
                found.register(number, select.POLLIN)
        number = found.poll()[0][0] if names else -1
        if names and not self.ending:
            self.broken = names[number]
            if self.broken != CONTROL:  # else other servers have not noticed yet
                self._send(signal.SIGSTOP)
            if not self.noticed.wait(NOTICE_SECONDS):
                self._send(signal.SIGKILL)
        for number in names:
            os.close(number)

    def _send(self, number: int) -> None:
        for pid in self.servers:
            with suppress(OSError):
                os.kill(pid, number)

    def end(self) -> None:
        """End Ray, or its remaining servers after a failure, and remove the files of Ray.

        After a failure the logs of Ray stay until the next start.
        """
        import ray

        self.ending = True
        if self.broken and self.folder is not None:
            end_processes(self.folder.path)
        if self.done.wait(END_SECONDS) and not self.errors:
            ray.shutdown()
        if self.folder is not None:
            self.folder.close(keep=self.keep_logs)
            self.folder = None


def _find_servers() -> dict[int, str]:
    """Return the servers of Ray that this process has started and that Ray cannot work without.

    When an agent of the raylet ends, the raylet ends a moment later, so agents count as servers.
    """
    from ray._private import worker

    node: Any = worker._global_node
    started = {} if node is None else node.all_processes
    found: dict[int, str] = {}
    for kind, name in (("gcs_server", CONTROL), ("raylet", "raylet")):
        for info in started.get(kind, ()):
            pid: int = info.process.pid
            found[pid] = name
            agents = children_of(pid) if kind == "raylet" else []
            found |= {child: "agent" for child in agents if b"agent" in command_of(child).lower()}
    return found


def _init(start: Start, options: dict[str, Any]) -> None:
    try:
        import ray
        from ray._private import ray_constants, services, worker
        from ray.job_config import JobConfig

        class _Job(JobConfig):
            """Job whose workers do not import from the driver's working directory."""

            def _runtime_env_has_working_dir(self) -> bool:
                return True

        worker.print_to_stdstream = lambda *_, **__: None  # pages about a server that has died
        # Else Ray takes a loopback address for a mistake and listens on every interface.
        ray_constants.ENABLE_RAY_CLUSTER = options["address"] != "local"
        ray_constants.RAY_DISABLE_FAILURE_SIGNAL_HANDLER = True  # SIGTERM would abort the process
        begin = getattr(services.start_ray_process, "func", services.start_ray_process)
        folder = None if start.folder is None else str(start.folder.path)
        services.start_ray_process = partial(begin, cwd=folder)
        ray.init(**options, job_config=_Job(), log_to_driver=False, logging_level=logging.CRITICAL)
        start.watch()
    except BaseException as error:
        start.errors.append(error)
    start.done.set()
    threading.Event().wait()  # Ray's client hangs once its thread has ended


def start_ray(config: EngineConfig) -> Start:
    """Begin to start Ray, or to connect to ``engine.address``; do nothing if Ray already runs.

    Raises:
        FedltError: If this process is connected to another cluster than the one asked for.
    """
    os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_preload_python_modules", PRELOADED)
    # Else ray.init waits, and the whole process with it, for a first worker that may have died.
    os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
    import ray

    if _STARTED and _STARTED[-1].broken:
        _STARTED.pop().end()
    if _STARTED and not _STARTED[-1].done.is_set():
        if _STARTED[-1].address == config.address:
            return _STARTED[-1]
        _STARTED[-1].done.wait()
    if ray.is_initialized():
        _check_connected(config.address)
        return _STARTED[-1] if _STARTED else Start.done_elsewhere()
    folder = make_home()
    start = Start(folder=folder, address=config.address)
    _STARTED.append(start)
    options: dict[str, Any] = {"address": config.address}
    if config.address is None:
        options = {
            "address": "local",
            "num_cpus": local_workers(config),  # so many processes wait, with torch imported
            "include_dashboard": False,
            "_node_ip_address": "127.0.0.1",
            "_temp_dir": str(folder.path),
        }
    atexit.register(_leave, start)
    threading.Thread(target=_init, args=(start, options), daemon=True).start()
    return start


def check_address(address: str) -> None:
    """Raise if no cluster answers at ``address``, after seconds; Ray itself takes minutes.

    Raises:
        FedltError: If ``address`` is neither ``auto`` nor a ``host:port`` that answers.
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
    """Raise if this process is connected to another cluster than ``address``."""
    import ray
    from ray._private.services import canonicalize_bootstrap_address

    current = ray.get_runtime_context().gcs_address
    if address is not None and canonicalize_bootstrap_address(address) != current:
        raise FedltError(
            f"engine.address: this process is connected to Ray at {current} already, "
            f"not to {address}"
        )


def count_places(config: EngineConfig) -> int:
    """Return the number of workers that the present nodes hold, if all of them are free."""
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
    """Return the number of workers to start: as configured, with ``auto`` all that fit.

    Raises:
        FedltError: If no node could hold a worker.
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
    """Return the number of workers that fit this machine's cores, also without Ray running."""
    if config.workers != "auto":
        return config.workers
    return max(1, int(_cores() / config.cpus_per_worker))


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _leave(start: Start) -> None:
    """End Ray with the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is saved, and this takes a moment
    if start.broken:  # the error line is printed; Ray would add a line for its lost objects
        sys.stderr.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    start.end()
