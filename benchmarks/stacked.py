"""Milliseconds a round of the stacked engine against the serial one, on tiny models.

Digits of 8x8 pixels, 10 clients, all of them in every round, batches of 10, one thread. A round is
what both engines do between two evaluations: messages, client tasks, the sum, the strategy's step.

    even      every client has the same number of images
    ragged    Dirichlet 0.5: the smallest client has a few images, the largest some hundreds

    python benchmarks/stacked.py [--rounds 30] [--epochs 1]

takes about a minute on one core and prints one JSON object. The two engines take turns, one round
each, so that other load on the machine meets both alike; ``ratio`` is the median over the rounds
of serial's time divided by stacked's. ``difference`` is the largest one between the two engines'
weights after the first round, relative to the largest entry of each tensor. Expect a ratio of 2 or
more.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import dataclass
from typing import Any

import torch

from fedlt.config import Config
from fedlt.engines import engine_class
from fedlt.engines.engine import Engine
from fedlt.federation import Parties, prepare_parties
from fedlt.flower.adapter import ServerHalf
from fedlt.flower.server_half import make_server_half
from fedlt.methods.lookup import resolve_client, resolve_strategy
from fedlt.realigning.drive import play_round

ENGINES = ("serial", "stacked")
MODELS: dict[str, dict[str, Any]] = {
    "mlp": {"name": "mlp"},
    "cnn, width 8": {"name": "cnn", "width": 8},
    "cnn": {"name": "cnn"},
}
PARTITIONS: dict[str, dict[str, Any]] = {"even": {"scheme": "iid"}, "ragged": {}}


def make_federation(
    model: dict[str, Any], partition: dict[str, Any], strategy: str, epochs: int
) -> Parties:
    """Return a federation of 10 clients on digits."""
    config = Config.model_validate(
        {
            "name": "stacked",
            "model": model,
            "partition": {"num_clients": 10, **partition},
            "strategy": strategy,
            "local": {"batch_size": 10, "lr": 0.05, "momentum": 0.5, "epochs": epochs},
            "rounds": 1,
        }
    )
    return prepare_parties(config, resolve_strategy(config), resolve_client(config))


@dataclass
class Run:
    """A run on one engine, round by round and without evaluation."""

    server: ServerHalf
    engine: Engine

    def __call__(self) -> float:
        """Do one round and return its seconds."""
        server, engine = self.server, self.engine
        start = time.perf_counter()
        engine.commit(play_round(server, engine, server.state.round + 1).used)
        return time.perf_counter() - start


def measure(federation: Parties, rounds: int) -> dict[str, Any]:
    """Let both engines take turns."""
    runs = {}
    for name in ENGINES:
        engine = engine_class(name)(federation).__enter__()
        runs[name] = Run(make_server_half(federation.view), engine)
    for run in runs.values():
        run()
    serial, stacked = (run.server.state.broadcast for run in runs.values())
    apart = [
        ((stacked[name] - tensor).abs().max() / tensor.abs().max().clamp(min=1e-12)).item()
        for name, tensor in serial.items()
        if tensor.is_floating_point()
    ]
    seconds = [{name: run() for name, run in runs.items()} for _ in range(rounds)]
    ratios = [turn["serial"] / turn["stacked"] for turn in seconds]
    low, middle, high = statistics.quantiles(ratios, n=4)
    sizes = federation.observer.data.client_counts.sum(axis=1)
    return {
        **{
            f"{name}_ms": round(1e3 * statistics.median(turn[name] for turn in seconds), 1)
            for name in ENGINES
        },
        "ratio": round(middle, 2),
        "ratio_quartiles": [round(low, 2), round(high, 2)],
        "difference": max(apart),
        "images": sorted(sizes.tolist()),
    }


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30, help="rounds of each engine")
    parser.add_argument("--epochs", type=int, default=1, help="local epochs")
    parser.add_argument("--strategy", default="fedavg", help="a strategy's name")
    options = parser.parse_args()
    found = {
        f"{model}, {partition}": measure(
            make_federation(MODELS[model], PARTITIONS[partition], options.strategy, options.epochs),
            options.rounds,
        )
        for model in MODELS
        for partition in PARTITIONS
    }
    print(
        json.dumps(
            {"torch": torch.__version__, "threads": torch.get_num_threads(), **found}, indent=1
        )
    )


if __name__ == "__main__":
    main()
