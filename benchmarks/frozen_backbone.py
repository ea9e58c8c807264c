"""Seconds a round with a trained, a frozen, and a frozen and cached ResNet-18, and equal hits.

Networks of timm and torchvision, each with weights from a local file (random numbers in the
library's own names, its classifier among them). FedAvg on synthetic images of 3 x 32 x 32 in 10
classes, 4 clients, serial engine, one thread; every round is scored, in both views.

    trained   the backbone is trained
    frozen    model.freeze: all
    cached    and model.cache_features: true

    python benchmarks/frozen_backbone.py [--rounds 5] [--images 400]

prints one JSON object. ``seconds`` is the median over the rounds of one run, training and scoring;
``start`` is the time before the first round, in which ``cached`` computes the features.
``equal_hits``: the class hit counts of ``frozen`` and ``cached`` are the same in every round, the
clients' among them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torchvision

from fedlt.config import Config
from fedlt.progress import Progress
from fedlt.runs.directory import RunDirectory
from fedlt.runs.evaluations import evaluation_path
from fedlt.simulate import run

VARIANTS: dict[str, dict[str, Any]] = {
    "trained": {},
    "frozen": {"freeze": "all"},
    "cached": {"freeze": "all", "cache_features": True},
}
NETWORKS = {
    "timm:resnet18": lambda: timm.create_model("resnet18", pretrained=False),
    "torchvision:resnet18": lambda: torchvision.models.resnet18(weights=None),
}


class Started(Progress):
    """Notes the time at which the first round begins, and the lines before it."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.at = 0.0

    def note(self, line: str) -> None:
        """Keep a line."""
        self.lines.append(line)

    def start(self, rounds: int, done: int = 0) -> None:
        """Take the time."""
        self.at = time.perf_counter()


def measure(network: str, weights: str, variant: str, folder: Path, args: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return what a run of a variant took, and its hits."""
    options = {"channels": 3, "image_size": 32, "train_per_class": args.images // 10}
    config = Config.model_validate(
        {
            "name": variant,
            "output": str(folder / network.replace(":", "-")),
            "data": {"dataset": "synthetic", "imbalance_factor": 10, "options": options},
            "partition": {"num_clients": 4},
            "model": {"name": network, "weights": weights, **VARIANTS[variant]},
            "local": {"lr": 0.05, "batch_size": 32},
            "engine": {"name": "serial"},
            "rounds": args.rounds,
        }
    )
    begin, progress = time.perf_counter(), Started()
    run(config, progress=progress)
    directory = RunDirectory.of(config)
    ends = [row["seconds"] for row in directory.rounds()]
    each = [end - start for start, end in zip([0.0, *ends], ends, strict=False)]
    return {
        "seconds": statistics.median(each),
        "start": progress.at - begin,
        "hits": [hits(directory, row["round"]) for row in directory.rounds()],
        "line": next(line for line in progress.lines if line.startswith("weights of")),
    }


def hits(directory: RunDirectory, round_: int) -> dict[str, list[Any]]:
    """Return the hit counts of a round."""
    with np.load(evaluation_path(directory.path, round_)) as file:
        return {n: file[n].tolist() for n in file.files if "hits" in n or "confusion" in n}


def main() -> None:
    """Print the JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=400, help="in all classes, before the tail")
    args = parser.parse_args()
    found: dict[str, Any] = {"rounds": args.rounds, "images": args.images}
    with tempfile.TemporaryDirectory() as folder:
        for network, make in NETWORKS.items():
            torch.manual_seed(0)
            weights = str(Path(folder) / f"{network.replace(':', '-')}.pt")
            torch.save(make().state_dict(), weights)
            runs = {v: measure(network, weights, v, Path(folder), args) for v in VARIANTS}
            found[network] = {
                "seconds": {variant: round(one["seconds"], 3) for variant, one in runs.items()},
                "start": {variant: round(one["start"], 2) for variant, one in runs.items()},
                "equal_hits": runs["frozen"]["hits"] == runs["cached"]["hits"],
                "line": runs["cached"]["line"].replace(folder, ""),
            }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
