"""A data set in a memory map: private memory by process, and the time of a round.

Memory: a map of 2 GB (a sparse file) is opened and trained on, on the serial engine and on two Ray
workers, and so are scikit-learn's digits. Reported is RssAnon, the private memory of each process,
in MB at the end of the second round; pages of the map are in the page cache and do not count.

Time: 64 x 64 images in a map whose pages are in the page cache, against the same arrays in memory,
on the serial engine. The two take turns in one process. Reported is the ratio of their rounds.

    python benchmarks/mapped_data.py [--megabytes 2048] [--rounds 15] [--repeats 3]

takes about 4 minutes on 2 idle cores and prints one JSON object. Expect less than 300 MB more
private memory than digits in every process, and a ratio of at most 1.1.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedlt.data import Dataset, dataset_from_arrays
from fedlt.engines.ray_home import children_of, command_of

if TYPE_CHECKING:
    from fedlt.flower.adapter import ServerHalf

SHAPE, CLASSES = (3, 64, 64), 10
TESTS = 500  # images in the test set
TIMED = 4000  # training images of the rounds that are timed: 49 MB


def load(folder: str, *, in_memory: bool = False) -> Dataset:
    """Return the data set in a folder of :func:`write`, mapped or read into memory."""
    mode = None if in_memory else "r"
    train, test = (np.load(f"{folder}/{part}.npy", mmap_mode=mode) for part in ("train", "test"))
    labels = (np.arange(len(images)) % CLASSES for images in (train, test))
    return dataset_from_arrays("mapped", train, next(labels), test, next(labels))


def write(folder: Path, images: int, *, sparse: bool) -> None:
    """Write a training and a test file: noise, or zeros that need no space on the disk."""
    draw = np.random.default_rng(0)
    for part, count in (("train", images), ("test", TESTS)):
        path = folder / f"{part}.npy"
        file = np.lib.format.open_memmap(path, "w+", np.uint8, (count, *SHAPE))
        if not sparse:
            file[:] = draw.integers(0, 256, file.shape, np.uint8)
        file.flush()


def settings(data: dict[str, Any], engine: str, rounds: int, clients: int) -> dict[str, Any]:
    """Return the configuration of a run on a data set; a client has some hundred images."""
    return {
        "name": "mapped",
        "data": {"imbalance_factor": 10, **data},
        "partition": {"num_clients": clients},
        "model": {"name": "cnn", "width": 8},
        "local": {"batch_size": 32},
        "engine": {"name": engine, "workers": 2},
        "rounds": rounds,
        "clients_per_round": 2,
    }


def mapped(folder: str, *, in_memory: bool = False) -> dict[str, Any]:
    """Return the section `data` of a folder of :func:`write`."""
    options = {"folder": folder, "in_memory": in_memory}
    return {"dataset": f"{Path(__file__).resolve()}:load", "options": options}


class Run:
    """A run of a configuration, given as a tree, round by round."""

    def __init__(self, tree: dict[str, Any]) -> None:
        from fedlt.config import Config
        from fedlt.engines import engine_class
        from fedlt.federation import prepare_parties
        from fedlt.flower.server_half import make_server_half
        from fedlt.methods.lookup import resolve_client, resolve_strategy

        config = Config.model_validate(tree)
        kind = engine_class(config.engine.name)
        kind.prepare(config.engine)
        self.parties = prepare_parties(config, resolve_strategy(config), resolve_client(config))
        self.server: ServerHalf = make_server_half(self.parties.view)
        self.grid = kind(self.parties)
        self.round = 0

    def step(self) -> float:
        """Play a round and return its seconds."""
        from fedlt.realigning.drive import play_round

        self.round += 1
        start = time.perf_counter()
        self.grid.commit(play_round(self.server, self.grid, self.round).used)
        return time.perf_counter() - start


def memory(data: dict[str, Any], engine: str, clients: int) -> dict[str, Any]:
    """Return the private memory of every process of a run after two rounds (in a child)."""
    from fedlt.worker.worker import prepare_process

    prepare_process()
    start = time.perf_counter()
    run = Run(settings(data, engine, 2, clients))
    opened = time.perf_counter() - start
    with run.grid:
        for _ in range(2):
            run.step()
        found = {"driver": private_mb(os.getpid()), "opened_seconds": opened}
        return found | {"workers": [private_mb(pid) for pid in ray_workers()]}


def ray_workers() -> list[int]:
    """Return the ids of this process's Ray workers; Ray gives most of them a title, but not all."""
    heads = {pid: b" ".join(command_of(pid).split(b"\0")[:3]) for pid in descendants(os.getpid())}
    return [
        pid for pid, head in heads.items() if b"RayWorker" in head or b"/default_worker.py" in head
    ]


def descendants(pid: int) -> list[int]:
    """Return the ids of all processes below a process."""
    return [one for child in children_of(pid) for one in (child, *descendants(child))]


def private_mb(pid: int) -> float:
    """Return RssAnon of a process in MB."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    (kilobytes,) = (line.split()[1] for line in lines if line.startswith("RssAnon"))
    return round(int(kilobytes) / 1024, 1)


def times(folder: str, rounds: int) -> dict[str, Any]:
    """Return the seconds of rounds from a map and from memory, taken in turn (in a child)."""
    from fedlt.worker.worker import prepare_process

    prepare_process()
    runs = {
        name: Run(settings(mapped(folder, in_memory=name == "memory"), "serial", rounds + 2, 10))
        for name in ("map", "memory")
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    with runs["map"].grid, runs["memory"].grid:
        for number in range(rounds + 2):
            names = list(runs) if number % 2 else list(runs)[::-1]
            for name in names:
                seconds[name].append(runs[name].step())
    kept = {name: values[2:] for name, values in seconds.items()}  # the first two warm up
    ratios = [a / b for a, b in zip(kept["map"], kept["memory"], strict=True)]
    medians = {name: statistics.median(values) for name, values in kept.items()}
    return {"seconds": medians, "ratio": statistics.median(ratios)}


def child(kind: str, *arguments: Any) -> dict[str, Any]:  # noqa: ANN401 (JSON)
    """Return the answer of a function of this file, called in a process of its own."""
    given = json.dumps([kind, *arguments])
    command = [sys.executable, __file__, "--child", given]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def main() -> None:
    """Measure everything and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--child")
    given = parser.parse_args()
    if given.child:
        kind, *arguments = json.loads(given.child)
        print(json.dumps({"memory": memory, "times": times}[kind](*arguments)))
        return
    with tempfile.TemporaryDirectory() as folder:
        big, small = Path(folder, "big"), Path(folder, "small")
        big.mkdir()
        small.mkdir()
        write(big, given.megabytes * 2**20 // int(np.prod(SHAPE)), sparse=True)
        write(small, TIMED, sparse=False)
        private = {
            engine: {
                "digits": child("memory", {"dataset": "digits"}, engine, 10),
                "map": child("memory", mapped(str(big)), engine, given.megabytes),
            }
            for engine in ("serial", "ray")
        }
        rounds = [child("times", str(small), given.rounds) for _ in range(given.repeats)]
    ratio = statistics.median(one["ratio"] for one in rounds)
    facts = {"megabytes": given.megabytes, "private_mb": private, "rounds": rounds, "ratio": ratio}
    print(json.dumps(facts, indent=2))


if __name__ == "__main__":
    main()
