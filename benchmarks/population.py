"""What idle clients cost: start-up, rounds, evaluations and checkpoints of 100 to 100,000 clients.

Every round trains 100 clients with a trainer that does nothing, on a tiny model, so that only the
bookkeeping is left. The data set is the same for all populations: 500,000 images of 8 x 8 pixels.
One run of ``fedlt.simulate.run`` in a process of its own gives

    start_s         from the start of the process to the first round: imports, data, partition
    round_ms        median round without evaluation and checkpoint
    evaluation_ms   what an evaluation of both views, 100 clients in the personal one, adds
    checkpoint_ms   what a checkpoint adds to a round
    result_s        from the end of the last round to the end of the run
    peak_mb         largest resident memory of the driver
    partition_mb    size of partition.json

    python benchmarks/population.py [--clients 100,10000,100000] [--engine serial] [--repeats 3]

takes about 3 minutes and prints one JSON object. Expect start_s below 20, and round_ms equal for
all populations up to noise.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from fedlt.progress import Progress

TRAINER = Path(__file__).with_name("engine_overhead.py").resolve()
COHORT = 100
ROUNDS = 40
EVALUATED, SAVED = 7, 9  # intervals; the rounds of both are left out


class Clock(Progress):
    """Remembers when the first round began and when each round ended."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def start(self, total_rounds: int, done: int = 0) -> None:
        """Note the time."""
        self.times.append(time.time())

    def advance(self, round: int, text: str = "") -> None:
        """Note the time."""
        self.times.append(time.time())


def simulate(clients: int, engine: str, born: float) -> dict[str, float]:
    """Run once (in a child) and return the figures.

    Args:
        clients: The population.
        engine: Name of the engine.
        born: When the process was started, in seconds of the system's clock.
    """
    from fedlt.config import Config
    from fedlt.simulate import run

    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        config = Config.model_validate(
            {
                "name": "population",
                "output": folder,
                "data": {
                    "dataset": "synthetic",
                    "options": {"train_per_class": 50_000, "test_per_class": 10},
                },
                "partition": {"num_clients": clients},
                "model": {"width": 4},
                "strategy": {"name": f"{TRAINER}:NullTrainer"},
                "engine": {"name": engine, "workers": 2},
                "rounds": ROUNDS,
                "clients_per_round": COHORT,
                "evaluate": {"every": EVALUATED, "clients": 100},
                "checkpoint": {"every": SAVED},
            }
        )
        run(config, progress=clock)
        end = time.time()
        size = next(Path(folder).glob("*/*/partition.json")).stat().st_size
    lengths = {r: 1000 * (clock.times[r] - clock.times[r - 1]) for r in range(4, ROUNDS - 1)}

    def median(evaluated: bool, saved: bool) -> float:
        chosen = [
            length
            for number, length in lengths.items()
            if (number % EVALUATED == 0, number % SAVED == 0) == (evaluated, saved)
        ]
        return statistics.median(chosen)

    plain = median(False, False)
    return {
        "start_s": clock.times[0] - born,
        "round_ms": plain,
        "evaluation_ms": median(True, False) - plain,
        "checkpoint_ms": median(False, True) - plain,
        "result_s": end - clock.times[-1],
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "partition_mb": size / 2**20,
    }


def _child(clients: int, engine: str) -> dict[str, float]:
    """Measure in a process of its own."""
    call = json.dumps([clients, engine, time.time()])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, __file__, "--child", call]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{clients} clients: {done.stderr[-2000:]}")
    answer: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return answer


def measure(populations: list[int], engine: str, repeats: int) -> dict[str, Any]:
    """Visit every population ``repeats`` times in turn; return median, least and most."""
    found: dict[str, list[float]] = {}
    for _ in range(repeats):
        for clients in populations:
            for name, value in _child(clients, engine).items():
                found.setdefault(f"{clients}/{name}", []).append(value)
    return {
        name: {
            "median": round(statistics.median(values), 2),
            "min": round(min(values), 2),
            "max": round(max(values), 2),
        }
        for name, values in found.items()
    }


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", default="100,10000,100000")
    parser.add_argument("--engine", default="serial")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(simulate(*json.loads(options.child))))
        return
    populations = [int(text) for text in options.clients.split(",")]
    found = measure(populations, options.engine, options.repeats)
    print(json.dumps({"engine": options.engine, "cores": os.cpu_count(), **found}, indent=1))


if __name__ == "__main__":
    main()
