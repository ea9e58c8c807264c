"""A deployment of three nodes against Flower's own FedAvg app, and what a node's task costs.

One SuperLink and three SuperNodes on this machine, each node with a file of its own: 100 images of
the digits, 10 classes, a perceptron of 64 hidden units. Two apps take turns on these same nodes:
fedlt's FedAvg, as ``fedlt app`` writes it, and ``plain_app/``, Flower's own FedAvg as its pages
write it. Both train one epoch and score the model on every node in every round.

    python benchmarks/deployment.py [--rounds 4] [--turns 3]

prints one JSON object. ``seconds_a_round``: rounds 2 and later of all turns. ``cpu_seconds``: the
CPU time of one training task in a process of its own, by part, since Flower starts a process for
every message: the imports of torch and Flower, which the plain app needs too; fedlt's imports;
opening the node (its images, model, optimizer); the task. ``own`` is what is beyond the first.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from turns import ratios, spread

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tests" / "helpers"))
from loopback import Federation  # noqa: E402 (as the tests start Flower's processes)

NODES, IMAGES = 3, 100
PROJECT = """[project]
name = "plain"
version = "1.0.0"
description = "Flower's own FedAvg"
license = {file = "LICENSE"}
dependencies = ["flwr>=1.41"]

[tool.flwr.app]
publisher = "me"
fab-format-version = 1
flwr-version-target = "1.41.0"
fab-include = ["LICENSE", "server_app.py", "client_app.py", "network.py"]

[tool.flwr.app.components]
serverapp = "server_app:app"
clientapp = "client_app:app"

[tool.flwr.app.config]
rounds = 1
nodes = 1
output = ""
"""
# The parts of a task, as Flower's process for it goes through them.
PARTS = """
import json, sys, time
marks = [("start", time.process_time())]
def mark(name): marks.append((name, time.process_time()))
import torch, flwr.clientapp, flwr.supernode.runtime.run_clientapp
mark("torch_and_flower")
sys.path.insert(0, sys.argv[1])
from client_app import app
mark("fedlt_app")
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MessageType, RecordDict
from fedlt.apps.node import open_node
mark("fedlt_import")
from fedlt.config import load_config
from pathlib import Path
config = load_config(Path(sys.argv[1]) / "experiment.yaml")
mark("configuration")
context = Context(run_id=1, node_id=1, node_config={"partition-id": 0, "data": sys.argv[2]},
                  state=RecordDict(), run_config={})
node = open_node(config, context)
mark("open_node")
from fedlt.flower.records import array_record
shares = node.worker.shares
state = shares.strategy.init(shares.build_model())
content = {"arrays": array_record(state.broadcast),
           "config": ConfigRecord({"server-round": 1, "state-round": 0, "run": "r"})}
from flwr.supercore.task_identity import TaskIdentity
TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1
message = Message(RecordDict(content), 1, MessageType.TRAIN, group_id="1")
mark("-")
app(message, context)
mark("task")
print(json.dumps({name: at - before for (_, before), (name, at) in zip(marks, marks[1:])}))
"""


def write_images(folder: Path) -> None:
    """Write a file of digits for each node: images (n, 8, 8, 1) of 8 bits and labels."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = (digits.images * 15).astype(np.uint8)[..., None]
    for node in range(NODES):
        rows = slice(node * IMAGES, (node + 1) * IMAGES)
        x, y = images[rows], digits.target[rows]
        arrays = {"train_images": x, "train_labels": y, "test_images": x, "test_labels": y}
        np.savez(folder / f"{node}.npz", **arrays)


def write_apps(federation: Federation, rounds: int) -> None:
    """Write the folders of both apps."""
    folder = federation.folder
    tree = {
        "name": "fedlt",
        "strategy": "fedavg",
        "rounds": rounds,
        "clients_per_round": NODES,
        "data": {"dataset": "npz", "options": {"path": "x.npz", "classes": [*range(10)]}},
        "partition": {"num_clients": NODES},
        "model": {"name": "mlp", "width": 64, "norm": "none"},
        "local": {"lr": 0.1, "momentum": 0.9, "batch_size": 32, "epochs": 1},
        "evaluate": {"every": 1},
        "deployment": {"data": "nodes", "image_shape": [1, 8, 8]},
    }
    (folder / "fedlt.yaml").write_text(yaml.safe_dump(tree))
    federation.call("fedlt", "app", "fedlt.yaml", "fedlt-app")
    plain = folder / "plain_app"
    plain.mkdir()
    (plain / "pyproject.toml").write_text(PROJECT)
    for source in (Path(__file__).parent / "plain_app").iterdir():
        if source.is_file():
            (plain / source.name).write_bytes(source.read_bytes())


def run_fedlt(federation: Federation, turn: int) -> list[float]:
    """Do a run of fedlt's app; return seconds a round."""
    output = federation.folder / f"runs{turn}"
    federation.call("flwr", "run", "fedlt-app", "fedlt", "-c", f'output="{output}"')
    federation.wait(lambda: any(output.rglob("result.json")), 600)
    (path,) = output.rglob("rounds.jsonl")
    ends = [json.loads(line)["seconds"] for line in path.read_text().splitlines()]
    return np.diff(ends).tolist()


def run_plain(federation: Federation, turn: int, rounds: int) -> list[float]:
    """Do a run of the plain app; return seconds a round, without the first."""
    output = federation.folder / f"plain{turn}.json"
    values = f'output="{output}" rounds={rounds} nodes={NODES}'
    federation.call("flwr", "run", "plain_app", "fedlt", "-c", values)
    federation.wait(output.exists, 600)
    time.sleep(1)  # the file is written at once, and its process ends
    return np.diff(json.loads(output.read_text())).tolist()[1:]


def task_parts(folder: Path, repeats: int = 5) -> dict[str, Any]:
    """Return CPU seconds of the parts of a task, and of fedlt's own together."""
    found: list[dict[str, float]] = []
    for _ in range(repeats):
        done = subprocess.run(
            [sys.executable, "-c", PARTS, str(folder / "fedlt-app"), str(folder / "0.npz")],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        )
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])
        found.append(json.loads(done.stdout.splitlines()[-1]))
    names = [name for name in found[0] if name != "-"]
    own = [sum(parts[n] for n in names if n != "torch_and_flower") for parts in found]
    return {n: spread([parts[n] for parts in found], 3) for n in names} | {"own": spread(own, 3)}


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--turns", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        federation = Federation(folder, haste=False)
        write_images(folder)
        write_apps(federation, args.rounds)
        answer: dict[str, Any] = {"cpu_seconds": task_parts(folder)}
        federation.connect()
        try:
            federation.start_link("--insecure")
            for node in range(NODES):
                federation.start_node(node, data=folder / f"{node}.npz")
            ours: list[float] = []
            plain: list[float] = []
            for turn in range(args.turns):
                ours += run_fedlt(federation, turn)
                plain += run_plain(federation, turn, args.rounds)
        finally:
            federation.stop()
    answer["seconds_a_round"] = {"fedlt": spread(ours, 2), "flower": spread(plain, 2)}
    answer["fedlt/flower"] = ratios(ours, plain)
    print(json.dumps(answer, indent=2))


if __name__ == "__main__":
    main()
