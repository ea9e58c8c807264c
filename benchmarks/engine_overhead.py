"""What a client task costs besides training: engines, stock Flower, and the floor under them.

The trainer does nothing, so a task is: weights into the model, update out, update into the sum.
Measured for a small and a large model, 10 clients a round, in milliseconds a client task:

    floor     on the same tensors, in the same process, between the rounds: one copy of the weights
              into the model, one copy of the result, one weighted accumulation
    serial    fedlt's engine in the driver's process
    ray       fedlt's Ray engine, 2 workers
    flower    stock Flower's simulation on 2 Ray actors (flower_fedavg.py)
    idle      the engines again with 1000 clients in the population instead of 10

and in seconds from the start of the process to the end of the first round: ``fedlt run`` on the Ray
engine (evaluation and its line in rounds.jsonl included) and stock Flower.

    python benchmarks/engine_overhead.py [--repeats 3] [--rounds 12] [--models small,large]

takes about 8 minutes on 2 idle cores and prints one JSON object. Every measurement is a process of
its own, so that each starts its own Ray; a repeat visits all of them in turn, and Ray's workers run
at normal priority under both, as fedlt has it. Expect serial at 1.1 times the floor for the large
model and 0.4 ms above it for the small one, ray 3 times above serial for the small model and 8 to
12 times below stock Flower, the first round at a third of stock Flower's seconds, and 0.3 ms for
every client that takes part for the first time.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from fedlt.strategy import Strategy, Update

if TYPE_CHECKING:
    from fedlt.client import Client
    from fedlt.flower.adapter import ServerHalf

MODELS = {"small": ("cnn", 74), "large": ("resnet18", 64)}  # 0.50 M and 11.2 M parameters
COHORT = 10
WARM_UP = 3  # rounds that are not counted
QUICKSTART = """
name: start
data: {{dataset: digits, imbalance_factor: 10}}
partition: {{num_clients: 10}}
rounds: 1
engine: {{name: ray}}
output: {output}
"""


@dataclass(frozen=True)
class NullTrainer(Strategy):
    """Federated averaging without training."""

    def local_update(self, client: Client) -> Update:
        """Answer at once."""
        return client.update({"loss": 0.0, "examples": 1.0, "steps": 0.0})


def simulate(engine: str, model: str, clients: int, rounds: int) -> dict[str, Any]:
    """Time rounds of the null trainer on an engine, and the floor between them (in a child)."""
    from fedlt.config import Config
    from fedlt.engines import engine_class
    from fedlt.federation import prepare_parties
    from fedlt.flower.server_half import make_server_half
    from fedlt.methods.lookup import resolve_client, resolve_strategy
    from fedlt.worker.worker import prepare_process

    prepare_process()
    backbone, width = MODELS[model]
    options = {"image_size": 32, "channels": 3, "train_per_class": 400, "test_per_class": 1}
    config = Config.model_validate(
        {
            "name": "overhead",
            "data": {"dataset": "synthetic", "options": options},
            "partition": {"scheme": "iid", "num_clients": clients},
            "model": {"name": backbone, "width": width},
            "strategy": {"name": f"{Path(__file__).resolve()}:NullTrainer"},
            "engine": {"name": engine, "workers": 2},
            "rounds": rounds,
            "clients_per_round": COHORT,
        }
    )
    kind = engine_class(engine)
    kind.prepare(config.engine)
    federation = prepare_parties(config, resolve_strategy(config), resolve_client(config))
    server = make_server_half(federation.view)
    with kind(federation) as grid:
        return {"parameters": _count(server), **_time_rounds(server, grid, rounds)}


def _count(server: ServerHalf) -> int:
    return sum(parameter.numel() for parameter in server.model.parameters())


def _time_rounds(server: ServerHalf, grid: Any, rounds: int) -> dict[str, Any]:  # noqa: ANN401
    """Return milliseconds a task, of rounds and floors taken in turn, and the memory they left."""
    from fedlt.realigning.drive import play_round

    task, floor, memory = [], [], []
    for round_ in range(1, WARM_UP + rounds + 1):
        start = time.perf_counter()
        grid.commit(play_round(server, grid, round_).used)
        task.append(1000 * (time.perf_counter() - start) / COHORT)
        floor.append(_floor(server))
        memory.append(_resident_mb())
    ratios = [a / b for a, b in zip(task, floor, strict=True)]
    return {
        "task_ms": statistics.median(task[WARM_UP:]),
        "floor_ms": statistics.median(floor[WARM_UP:]),
        "over_floor": statistics.median(ratios[WARM_UP:]),
        "growth_mb": memory[-1] - memory[WARM_UP - 1],
    }


def _floor(server: ServerHalf) -> float:
    """Return milliseconds a task of the least that any engine must do with these tensors."""
    state, integers = server.model.state(), set(server.model.integer_names())
    names = [name for name in server.model.names("shared") if name not in integers]
    live = [state[name] for name in names]
    weights = [server.state.broadcast[name] for name in names]
    total = [torch.zeros_like(tensor) for tensor in live]
    start = time.perf_counter()
    for weight in range(COHORT):
        torch._foreach_copy_(live, weights)
        result = [tensor.clone() for tensor in live]
        torch._foreach_add_(total, result, alpha=float(weight))
    return 1000 * (time.perf_counter() - start) / COHORT


def _resident_mb() -> float:
    """Return this process's own resident memory, without what it shares with Ray."""
    values = Path("/proc/self/statm").read_text(encoding="ascii").split()
    return (int(values[1]) - int(values[2])) * os.sysconf("SC_PAGE_SIZE") / 2**20


def stock(model: str, rounds: int) -> dict[str, Any]:
    """Time rounds of stock Flower (in a child)."""
    from flower_fedavg import measure_stock

    times = measure_stock(*MODELS[model], COHORT, WARM_UP + rounds)
    tasks = [1000 * (b - a) / COHORT for a, b in itertools.pairwise(times)]
    return {"task_ms": statistics.median(tasks[WARM_UP:]), "first_round_at": times[1]}


def start_fedlt() -> float:
    """Return the seconds from the start of ``fedlt run`` to the first line of rounds.jsonl."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "start.yaml")
        file.write_text(QUICKSTART.format(output=folder), encoding="utf-8")
        lines = Path(folder, "start", "1", "rounds.jsonl")
        start = time.monotonic()
        process = subprocess.Popen(
            [Path(sys.executable).with_name("fedlt"), "run", str(file)], stdout=subprocess.DEVNULL
        )
        while process.poll() is None and not (lines.exists() and lines.stat().st_size):
            time.sleep(0.01)
        seconds = time.monotonic() - start
        if process.wait():
            raise RuntimeError("fedlt run failed")
        return seconds


def start_stock() -> float:
    """Return the seconds from the start of a stock Flower process to the end of its first round."""
    start = time.monotonic()
    return float(_child("stock", "small", 1)["first_round_at"]) - start


def _child(*call: object) -> dict[str, Any]:
    """Run a function of this file in a process of its own and return its answer."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    environment["RAY_worker_niceness"] = "0"  # fedlt's own setting; stock Flower gets it, too
    command = [sys.executable, __file__, "--child", json.dumps(call)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{call}: {done.stderr[-2000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def measure(models: Sequence[str], repeats: int, rounds: int) -> dict[str, Any]:
    """Visit every measurement ``repeats`` times in turn; return median, least and most of each."""
    found: dict[str, list[float]] = {}

    def note(values: dict[str, float], prefix: str) -> None:
        for name, value in values.items():
            found.setdefault(f"{prefix}/{name}", []).append(value)

    for _ in range(repeats):
        for model in models:
            for engine in ("serial", "ray"):
                few = _child("simulate", engine, model, COHORT, rounds)
                many = _child("simulate", engine, model, 1000, rounds)
                note(few, f"{model}/{engine}")
                idle = {"task_ms": many["task_ms"], "growth": many["task_ms"] / few["task_ms"]}
                note(idle, f"{model}/{engine}/idle")
            flower = _child("stock", model, rounds)["task_ms"]
            note({"task_ms": flower, "over_ray": flower / found[f"{model}/ray/task_ms"][-1]},
                 f"{model}/flower")  # fmt: skip
        note({"fedlt": start_fedlt(), "flower": start_stock()}, "first_round_s")
    return {
        name: {
            "median": round(statistics.median(values), 3),
            "min": round(min(values), 3),
            "max": round(max(values), 3),
        }
        for name, values in found.items()
    }


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=12, help="counted rounds a measurement")
    parser.add_argument("--models", default="small,large")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        name, *arguments = json.loads(options.child)
        print(json.dumps({"simulate": simulate, "stock": stock}[name](*arguments)))
        return
    found = measure(options.models.split(","), options.repeats, options.rounds)
    print(json.dumps({"cores": os.cpu_count(), "unit": "ms a client task, s", **found}, indent=1))


if __name__ == "__main__":
    main()
