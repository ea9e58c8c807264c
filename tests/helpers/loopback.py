"""A federation of Flower on this machine: a SuperLink and SuperNodes, processes of their own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

BIN = Path(sys.executable).parent
ROOT = Path(__file__).resolve().parents[2]
# Flower looks for tasks and answers every three seconds.
HASTE = """
import time
slow = time.sleep
time.sleep = lambda seconds: slow(0.2 if seconds == 3 else seconds)
"""


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Federation:
    """Flower's processes on this machine, in a folder.

    Args:
        folder: Where logs and Flower's own files go.
        haste: Make the three seconds in which Flower looks for tasks short.
    """

    def __init__(self, folder, *, haste=True):
        self.folder, self.port, self.processes = folder, free_port(), {}
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        if haste:
            (folder / "haste").mkdir()
            (folder / "haste" / "sitecustomize.py").write_text(HASTE)
            paths.insert(0, str(folder / "haste"))
        self.safe = ["--insecure"]
        self.environment = {n: v for n, v in os.environ.items() if not n.startswith("FLWR")} | {
            "FLWR_HOME": str(folder / "home"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(paths),
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        }

    def connect(self, line="insecure = true"):
        """Write Flower's configuration."""
        (self.folder / "home").mkdir()
        text = f'[superlink.fedlt]\naddress = "127.0.0.1:{self.port}"\n{line}\n'
        (self.folder / "home" / "config.toml").write_text(text)

    def start(self, name, *command):
        """Start a process that goes on."""
        with (self.folder / f"{name}.log").open("a") as log:
            self.processes[name] = subprocess.Popen(
                [BIN / command[0], *command[1:]],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=self.environment,
                start_new_session=True,
            )

    def start_link(self, *options):
        self.start("link", "flower-superlink", "--port", str(self.port), *options)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with socket.socket() as link:
                if link.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.1)
        raise AssertionError(self.logs())

    def start_node(self, cid, *options, **config):
        words = " ".join([f"partition-id={cid}", *(f'{k}="{v}"' for k, v in config.items())])
        self.start(
            f"node{cid}", "flower-supernode", *self.safe, "--superlink",
            f"127.0.0.1:{self.port}", "--port", str(free_port()), "--node-config", words, *options,
        )  # fmt: skip

    def kill(self, name):
        process = self.processes.pop(name)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def stop(self):
        for name in [*self.processes]:
            self.kill(name)

    def call(self, *command):
        done = subprocess.run(
            [BIN / command[0], *command[1:]],
            capture_output=True,
            text=True,
            cwd=self.folder,
            env=self.environment,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr + self.logs()
        return done.stdout

    def logs(self):
        return "".join(f"\n{p.name}\n{p.read_text()[-3000:]}" for p in self.folder.glob("*.log"))

    def wait(self, ready, seconds=150):
        deadline = time.monotonic() + seconds
        while not ready():
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.2)
