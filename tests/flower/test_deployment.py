"""A real federation on this machine: a SuperLink, two SuperNodes with folders of their own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import yaml

from fedlt.check import TINY
from fedlt.check.tiny_runs import read_checkpoint, read_rows
from fedlt.config import Config
from fedlt.runs.directory import RunDirectory
from fedlt.simulate import run

BIN = Path(sys.executable).parent
ROOT = Path(__file__).resolve().parents[2]
CLASSES = ["ape", "bee", "cat", "dog"]
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
    """Flower's processes on this machine, in a folder."""

    def __init__(self, folder):
        self.folder, self.port, self.processes = folder, free_port(), {}
        (folder / "haste").mkdir()
        (folder / "haste" / "sitecustomize.py").write_text(HASTE)
        self.safe = ["--insecure"]
        self.environment = {n: v for n, v in os.environ.items() if not n.startswith("FLWR")} | {
            "FLWR_HOME": str(folder / "home"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": f"{folder / 'haste'}{os.pathsep}{ROOT}",
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


@pytest.fixture
def federation(tmp_path):
    found = Federation(tmp_path)
    yield found
    for name in [*found.processes]:
        found.kill(name)


def make_images(folder):
    """Write a folder for each node, and a file of all their images; return mean and deviation."""
    draw, pooled = np.random.default_rng(3), []
    for cid, sizes in enumerate(([9, 6, 4, 0], [0, 5, 7, 8])):
        labels = np.repeat(np.arange(4), sizes)
        x = draw.integers(0, 180, (len(labels), 6, 6, 1), np.uint8)
        x[np.arange(len(labels)), labels, labels] = 255
        (folder / str(cid)).mkdir()
        names = np.array(CLASSES)[labels]
        arrays = {"train_images": x, "train_labels": names, "test_images": x, "test_labels": names}
        np.savez(folder / str(cid) / "mine.npz", **arrays)
        owners = np.full(len(labels), cid)
        pooled.append(arrays | {"train_clients": owners, "test_clients": owners})
    whole = {name: np.concatenate([one[name] for one in pooled]) for name in pooled[0]}
    np.savez(folder / "all.npz", **whole)
    x = whole["train_images"] / 255
    return {"mean": [float(x.mean())], "std": [float(x.std())]}


def write_app(federation, timeout=60.0, **changes):
    moments = make_images(federation.folder)
    tree = TINY | {
        "name": "real",
        "strategy": "fedloge",
        "rounds": 2,
        "clients_per_round": 2,
        "data": {"dataset": "npz", "options": {"path": "mine.npz", "classes": CLASSES}},
        "partition": {"num_clients": 2},
        "deployment": {
            "data": "nodes", "image_shape": [1, 6, 6], "answers": "per_class", "timeout": timeout,
            **moments,
        },
    }  # fmt: skip
    (federation.folder / "real.yaml").write_text(yaml.safe_dump(tree | changes))
    federation.call("fedlt", "app", "real.yaml", "app")
    return RunDirectory(federation.folder / "runs" / "real" / "1")


def flower_run(federation):
    output = f'output="{federation.folder / "runs"}"'
    federation.call("flwr", "run", "app", "fedlt", "-c", output)


def check_finished(directory, rounds):
    result = directory.result()
    assert result["status"] == "finished"
    assert [row["round"] for row in read_rows(directory)] == list(range(1, rounds + 1))
    assert result["generic_model"] == "shared"
    table = read_checkpoint(directory).tensors["personal"]
    assert table["at_node"].tolist() == [0, 1]
    assert table["round"].tolist() == [rounds, rounds]


@pytest.mark.flower
@pytest.mark.timeout(400)
def test_two_rounds_over_loopback(federation):
    """Each node has a folder that the server never sees; against a simulation that sees both."""
    directory = write_app(federation)
    federation.connect()
    federation.start_link("--insecure")
    for cid in (0, 1):
        federation.start_node(cid, data=federation.folder / str(cid))
    flower_run(federation)
    federation.wait(lambda: directory.state == "finished")
    check_finished(directory, 2)
    assert str(federation.folder / "0") not in (directory.path / "config.yaml").read_text()
    options = {"path": str(federation.folder / "all.npz")}
    given = TINY | {"name": "all", "strategy": "fedloge", "rounds": 2, "clients_per_round": 2}
    given |= {"data": {"dataset": "npz", "options": options}, "partition": {"scheme": "natural"}}
    given |= {"evaluate": {"local_test": "own"}}
    config = Config.model_validate(given | {"output": str(federation.folder / "runs")})
    run(config)
    for row, wanted in zip(directory.rounds(), RunDirectory.of(config).rounds(), strict=True):
        for name in ("personal/accuracy", "personal/local/accuracy", "train/loss"):
            assert row[name] == pytest.approx(wanted[name], rel=1e-5), name


def make_certificates(folder):
    """Write a certificate authority and a certificate for 127.0.0.1."""
    lines = [
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -keyout ca.key -out ca.crt -subj /CN=ca",
        "openssl req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=me",
        "openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 "
        "-out server.pem -extfile names",
    ]
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    for line in lines:
        subprocess.run(line.split(), cwd=folder, check=True, capture_output=True)


@pytest.mark.slow
@pytest.mark.flower
@pytest.mark.timeout(900)
def test_tls_keys_and_a_node_that_is_killed_and_started_again(federation):
    """After round 1, under another key: Flower refuses the first one until it misses the node.

    The client goes on with the personal head in its folder.
    """
    folder, last = federation.folder, 5
    directory = write_app(federation, rounds=last, timeout=15.0)
    make_certificates(folder)
    federation.connect('root-certificates = "../ca.crt"')
    (folder / "home" / "config.toml").write_text(
        f'[superlink.fedlt]\naddress = "127.0.0.1:{federation.port}"\n'
        f'root-certificates = "{folder / "ca.crt"}"\n'
    )
    federation.safe = ["--root-certificates", str(folder / "ca.crt")]
    federation.start_link(
        "--ssl-ca-certfile", "ca.crt", "--ssl-certfile", "server.pem", "--ssl-keyfile",
        "server.key", "--enable-supernode-auth",
    )  # fmt: skip
    keys = [str(folder / f"node{number}.key") for number in range(3)]
    for key in keys:
        line = f"ssh-keygen -q -t ecdsa -b 384 -f {key}".split()
        subprocess.run([*line, "-N", ""], check=True)
        federation.call("flwr", "supernode", "register", f"{key}.pub", "fedlt")
    for cid in (0, 1):
        start(federation, cid, keys[cid])
    flower_run(federation)
    rounds = directory.path / "rounds.jsonl"
    federation.wait(lambda: rounds.exists() and rounds.read_text().count("\n") >= 1)
    federation.kill("node1")
    start(federation, 1, keys[2])
    federation.wait(lambda: directory.state == "finished", 400)
    check_finished(directory, last)
    lost = directory.result()["faults"]
    assert lost is None or {(cid, kind) for _, cid, kind in lost["log"]} == {(1, "lost")}
    states = sorted(int(path.stem) for path in (folder / "states1").rglob("*.safetensors"))
    assert states[-1] == last


def start(federation, cid, key):
    federation.start_node(
        cid,
        "--auth-supernode-private-key",
        key,
        data=federation.folder / str(cid),
        **{"state-dir": federation.folder / f"states{cid}"},
    )
