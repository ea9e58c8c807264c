"""Memory against the cohort: driver, workers and object store together, at their peak.

Every client trains ResNet-18 (11 million parameters, 43 MiB) for one step on two images of 8 x 8
pixels, so that time is spent on moving models. Two rounds of 10, 100 and 1,000 clients, each in a
process of its own that a second process watches ten times a second (memory that the Ray engine's
driver shares with its workers is used from the second round on):

    pss_mb    peak of the sum over all processes of the run, memory that several share counted once
    rss_mb    the same with shared memory counted in every process: an upper bound
    seconds   of the rounds, evaluations and checkpoint included

``fedavg`` keeps nothing between rounds. ``personal`` is a method whose clients keep a whole model,
of which the driver keeps ``engine.personal_memory: 256`` MiB; ``spilled_mb`` is what lies on disk.

    python benchmarks/memory.py [--engines serial,ray] [--cohorts 10,100,1000] [--personal 10,40]

takes about 15 minutes on 2 cores and 4 GB of disk, and prints one JSON object. Expect pss_mb below
8192 for 1,000 clients, and little more than for 100.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedlt.strategy import Strategy, Update

if TYPE_CHECKING:
    from fedlt.client import Client

POPULATION = 1000
BUDGET = 256  # MiB of personal states in the driver
INTERVAL = 0.1  # seconds between two looks


@dataclass(frozen=True)
class WholeModels(Strategy):
    """Federated averaging whose clients also keep what they trained."""

    def local_update(self, client: Client) -> Update:
        """Train, and keep a copy of the model."""
        answer = super().local_update(client)
        return replace(answer, personal={f"own/{n}": t.clone() for n, t in answer.sums.items()})


def simulate(engine: str, strategy: str, cohort: int) -> dict[str, float]:
    """Run two rounds (in a child)."""
    from fedlt.config import Config
    from fedlt.simulate import run

    with tempfile.TemporaryDirectory() as folder:
        config = Config.model_validate(
            {
                "name": "memory",
                "output": folder,
                "data": {
                    "dataset": "synthetic",
                    "options": {"train_per_class": POPULATION // 5, "test_per_class": 1},
                },
                "partition": {"scheme": "iid", "num_clients": POPULATION},
                "model": {"name": "resnet18", "width": 64},
                "strategy": {"name": strategy},
                "local": {"batch_size": 2, "lr": 0.01, "momentum": 0.9},
                "engine": {"name": engine, "workers": 2, "personal_memory": BUDGET},
                "rounds": 2,
                "clients_per_round": cohort,
                "evaluate": {"clients": 1},
            }
        )
        seconds = run(config)["seconds"]
        spilled = sum(
            path.stat().st_size for path in Path(folder).glob("*/*/checkpoints/personal/*")
        )
    return {"seconds": round(seconds, 1), "spilled_mb": round(spilled / 2**20)}


def _processes() -> dict[int, int]:
    """Return the parent of every process."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        parents[int(path.parent.name)] = int(fields[1])
    return parents


def _tree(root: int) -> list[int]:
    """Return a process and its descendants."""
    parents = _processes()
    found = [root]
    for process in found:
        found += [child for child, parent in parents.items() if parent == process]
    return found


def _memory(processes: list[int]) -> dict[str, float]:
    """Return the sums over processes, in MiB."""
    sums = {"pss_mb": 0.0, "rss_mb": 0.0}
    for process in processes:
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii").splitlines()
        except OSError:
            continue
        values = dict(line.split(":") for line in lines[1:] if ":" in line)
        for name, key in (("pss_mb", "Pss"), ("rss_mb", "Rss")):
            sums[name] += int(values.get(key, "0 kB").split()[0]) / 1024
    return sums


def _watched(call: list[Any]) -> dict[str, float]:
    """Measure in a process of its own, and watch it and its descendants."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, __file__, "--child", json.dumps(call)]
    child = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    peak = {"pss_mb": 0.0, "rss_mb": 0.0}
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(INTERVAL):
            now = _memory(_tree(child.pid))
            peak.update({name: max(peak[name], value) for name, value in now.items()})

    watcher = threading.Thread(target=watch)
    watcher.start()
    out, errors = child.communicate()
    ended.set()
    watcher.join()
    if child.returncode:
        raise RuntimeError(f"{call}: {errors[-2000:]}")
    rounded = {name: round(value) for name, value in peak.items()}
    return rounded | json.loads(out.splitlines()[-1])


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engines", default="serial,ray")
    parser.add_argument("--cohorts", default="10,100,1000")
    parser.add_argument("--personal", default="10,40")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(simulate(*json.loads(options.child))))
        return
    whole = f"{Path(__file__).resolve()}:WholeModels"
    found: dict[str, Any] = {"cores": os.cpu_count(), "at": time.strftime("%Y-%m-%d")}
    for engine in options.engines.split(","):
        for label, strategy, cohorts in (
            ("fedavg", "fedavg", options.cohorts),
            ("personal", whole, options.personal),
        ):
            for cohort in filter(None, cohorts.split(",")):
                call = [engine, strategy, int(cohort)]
                found[f"{engine}/{label}/{cohort}"] = _watched(call)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
