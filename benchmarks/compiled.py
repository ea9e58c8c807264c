"""Images a second of a client's local training: eager, compiled, in bfloat16, and both.

One client, ResNet-8 on synthetic images of 3 x 32 x 32, batches of 32, one thread. ``compiled`` is
``engine.compile: true``, ``bfloat16`` is ``local.precision: bfloat16``:

    eager, compiled, bfloat16, both     Worker.client + Worker.train, one epoch of FedAvg

    python benchmarks/compiled.py [--turns 10] [--images 320] [--model resnet8] [--batch 32]

takes about 3 minutes on one idle core and prints one JSON object. The variants take turns, one
epoch each; ``ratio`` is the median, over the turns, of a variant's speed divided by eager's, with
its quartiles. ``start_seconds`` is the first epoch of a variant, in which PyTorch compiles; the
compiler's files of earlier runs are not used. ``bfloat16`` pays on processors with instructions for
it, and costs on others: ``amx`` and ``avx512_bf16`` say what this one has. Expect 1.1 for
compiled, and 1.3 and 1.5 for bfloat16 and both where it pays.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from local_training import ClientLoop, summary, take_turns

from fedlt.config import Config
from fedlt.federation import prepare_parties
from fedlt.methods.lookup import resolve_client, resolve_strategy
from fedlt.worker.worker import prepare_process

VARIANTS: dict[str, dict[str, Any]] = {
    "eager": {},
    "compiled": {"engine": {"compile": True}},
    "bfloat16": {"local": {"precision": "bfloat16"}},
    "both": {"engine": {"compile": True}, "local": {"precision": "bfloat16"}},
}


def make_loop(model: str, batch: int, images: int, changes: dict[str, Any]) -> ClientLoop:
    """Return the loop of one client."""
    options = {"channels": 3, "image_size": 32, "train_per_class": images // 10}
    local = {"lr": 0.05, "batch_size": batch, **changes.get("local", {})}
    config = Config.model_validate(
        {
            "name": "compiled",
            "data": {"dataset": "synthetic", "options": options},
            "partition": {"scheme": "iid", "num_clients": 1},
            "model": {"name": model},
            "local": local,
            "engine": {"name": "serial", "device": "cpu", **changes.get("engine", {})},
            "rounds": 1,
        }
    )
    parties = prepare_parties(config, resolve_strategy(config), resolve_client(config))
    loop = ClientLoop(parties)
    if config.engine.compile:
        loop.worker.compile()  # as the engines do
    return loop


def measure(model: str, batch: int, images: int, turns: int) -> dict[str, Any]:
    """Let the variants take turns; return images a second, ratios, and the first epochs."""
    loops = {name: make_loop(model, batch, images, given) for name, given in VARIANTS.items()}
    first = {name: _seconds(loop) for name, loop in loops.items()}
    found = summary(take_turns(dict(loops), turns), "eager", images)
    for name, seconds in first.items():
        found[name]["start_seconds"] = round(seconds, 1)
    return found


def _seconds(loop: ClientLoop) -> float:
    start = time.perf_counter()
    loop()
    return time.perf_counter() - start


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--images", type=int, default=320, help="images of the client")
    parser.add_argument("--model", default="resnet8")
    parser.add_argument("--batch", type=int, default=32, help="images of a batch")
    options = parser.parse_args()
    words = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    flags = {name: any(word.startswith(name) for word in words) for name in ("amx", "avx512_bf16")}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        prepare_process()
        found = measure(options.model, options.batch, options.images, options.turns)
    print(json.dumps({**flags, **found}, indent=1))


if __name__ == "__main__":
    main()
