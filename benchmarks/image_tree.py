"""Images on disk, from JPEG files to federated rounds: speed, disk and private memory.

Makes 20,000 JPEG files of 80 x 72 pixels in 50 long-tailed classes with 300 users, and the same as
lists, a table and a Hugging Face data set. Each of the four is decoded to 64 x 64 (images a second,
bytes on disk), inspected, and has the same labels and pixels. FedAvg trains 3 rounds of each on two
Ray workers, FedLoGe those of the table, the users as clients (the tree of folders names no users:
its clients are drawn), and both train scikit-learn's digits. Reported is RssAnon, the private
memory of a process, in MB after the last round. Rounds from the map and from the same arrays in
memory take turns in one process.

    python benchmarks/image_tree.py [--images 20000] [--folder /big/disk] [--rounds 9]

takes about 8 minutes on 2 idle cores and 1.5 GB of disk, and prints one JSON object. Expect less
than 300 MB more private memory than digits, and a ratio of at most 1.1 between the rounds.
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
from typing import Any

import numpy as np

from fedlt.data import Dataset, load_dataset
from fedlt.progress import Progress

CLASSES, USERS, SIDE = 50, 300, 64
TESTS = 40  # test images of a class


def plan(images: int) -> list[tuple[str, str, int, int]]:
    """Return part, path, class and user of every image; training classes fall off by 100."""
    draw = np.random.default_rng(0)
    shares = 100.0 ** -(np.arange(CLASSES) / (CLASSES - 1))
    tests = min(TESTS, images // (4 * CLASSES))
    counts = np.maximum(1, (shares / shares.sum() * (images - tests * CLASSES)).astype(int))
    counts[0] += images - tests * CLASSES - counts.sum()
    rows = []
    for label, count in enumerate(counts):
        liking = draw.dirichlet(np.full(USERS, 0.3))
        for part, number in (("train", count), ("test", tests)):
            users = draw.choice(USERS, number, p=liking)
            rows += [
                (part, f"{part}/class{label:02d}/{n}.jpg", label, int(user))
                for n, user in enumerate(users)
            ]
    return rows


def write(top: Path, rows: list[tuple[str, str, int, int]]) -> None:
    """Write the images, and the lists and the table that name them."""
    from PIL import Image

    draw = np.random.default_rng(1)
    patterns = draw.integers(0, 256, (CLASSES, 9, 10, 3), dtype=np.uint8)
    for _, path, label, _ in rows:
        place = top / "tree" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        noise = draw.integers(0, 64, (9, 10, 3), dtype=np.uint8)
        small = Image.fromarray(patterns[label] // 4 * 3 + noise)
        small.resize((80, 72), Image.Resampling.BICUBIC).save(place, quality=90)
    for part in ("train", "test"):
        lines = [f"{path} {label} {user}\n" for own, path, label, user in rows if own == part]
        (top / f"{part}.txt").write_text("".join(lines))
    lines = [f"{path},class{label:02d},{user},{part}\n" for part, path, label, user in rows]
    (top / "all.csv").write_text("path,label,client,split\n" + "".join(lines))


def save_hugging_face(top: Path, rows: list[tuple[str, str, int, int]]) -> None:
    """Write the same images as ``save_to_disk`` does."""
    import datasets

    datasets.disable_progress_bars()
    parts = {}
    for part in ("train", "test"):
        own = [row for row in rows if row[0] == part]
        columns = {
            "image": [str(top / "tree" / path) for _, path, _, _ in own],
            "label": [f"class{label:02d}" for _, _, label, _ in own],
            "client": [user for *_, user in own],
        }
        found = datasets.Dataset.from_dict(columns)
        parts[part] = found.cast_column("image", datasets.Image())
    datasets.DatasetDict(parts).save_to_disk(str(top / "hf"))


def sections(top: Path) -> dict[str, dict[str, Any]]:
    """Return the section `data` of each format, each with a cache of its own."""
    form = {"image_size": SIDE}
    lists = {"train": f"{top}/train.txt", "test": f"{top}/test.txt", "clients": True}
    options = {
        "folder": {"path": f"{top}/tree"},
        "list": {**lists, "root": f"{top}/tree"},
        "csv": {"path": f"{top}/all.csv", "root": f"{top}/tree"},
        "huggingface": {"path": f"{top}/hf"},
    }
    return {
        name: {"dataset": name, "root": f"{top}/data-{name}", "options": {**given, **form}}
        for name, given in options.items()
    }


def prepare(section: dict[str, Any]) -> dict[str, Any]:
    """Return the speed and the disk of decoding a data set (in a child)."""
    from fedlt.data.sources.image_cache import ImageCache

    cache = ImageCache(Path(section["root"]) / "cache")
    load_dataset(section["dataset"], options=section["options"], cache=cache)
    seconds = sum(one.seconds or 0.0 for one in cache.written)
    images = sum(one.images for one in cache.written)
    start = time.perf_counter()
    load_dataset(section["dataset"], options=section["options"], cache=cache)
    return {
        "images": images,
        "images_a_second": round(images / seconds),
        "megabytes_on_disk": round(sum(one.size for one in cache.written[:2]) / 1e6, 1),
        "second_open_seconds": round(time.perf_counter() - start, 2),
        "decoded_again": sum(one.seconds is not None for one in cache.written[2:]),
    }


def alike(given: list[dict[str, Any]]) -> dict[str, Any]:
    """Return whether all formats have the same labels, pixels and clients (in a child).

    A folder sorts the images of a class by name, so pixels are compared without their order.
    """
    first, *others = [_loaded(section) for section in given]
    found: dict[str, Any] = {"labels": True, "pixels": True, "clients": True}
    for part in ("train", "test"):
        mine = _digests(first, part)
        owners = getattr(others[0], f"{part}_clients")
        for other in others:
            found["pixels"] &= mine == _digests(other, part)
            labels = [getattr(one, f"{part}_labels") for one in (first, other)]
            found["labels"] &= bool(np.array_equal(*labels))
            found["clients"] &= bool(np.array_equal(owners, getattr(other, f"{part}_clients")))
    return found


def _digests(data: Dataset, part: str) -> list[tuple[int, int]]:
    """Return the label and a hash of the pixels of every image, sorted."""
    images, labels = getattr(data, f"{part}_images"), getattr(data, f"{part}_labels")
    return sorted(
        (int(c), hash(np.asarray(x).tobytes())) for x, c in zip(images, labels, strict=True)
    )


def _loaded(section: dict[str, Any]) -> Dataset:
    return load_dataset(section["dataset"], root=section["root"], options=section["options"])


def in_memory(section: str) -> Dataset:
    """Return a data set whose arrays are copied into memory; a data set's function."""
    from dataclasses import replace

    found = _loaded(json.loads(section))
    arrays = {name: np.array(getattr(found, name)) for name in ("train_images", "test_images")}
    return replace(found, **arrays)


class AtTheEnd(Progress):
    """Progress that measures private memory after the last round, while the workers are up."""

    def __init__(self, rounds: int) -> None:
        self._rounds = rounds
        self.found: dict[str, Any] = {}

    def advance(self, round: int, text: str = "") -> None:
        """Measure after the last round."""
        from mapped_data import private_mb, ray_workers

        if round == self._rounds:
            self.found = {
                "driver": private_mb(os.getpid()),
                "workers": [private_mb(pid) for pid in ray_workers()],
            }


def settings(data: dict[str, Any], strategy: str, engine: str) -> dict[str, Any]:
    """Return the configuration of 3 rounds of a method."""
    natural = data["dataset"] not in ("digits", "folder")
    return {
        "name": "tree",
        "rounds": 3,
        "clients_per_round": 20,
        "data": data,
        "partition": {"scheme": "natural"} if natural else {"num_clients": 100, "min_samples": 1},
        "strategy": strategy,
        "model": {"name": "cnn", "width": 32},
        "local": {"lr": 0.05, "batch_size": 16},
        # Activations of larger batches, 500 images by default, would hide what the map takes.
        "evaluate": {"personal_every": 3, "clients": 50, "batch_size": 50},
        "engine": {"name": engine, "workers": 2},
    }


def run(data: dict[str, Any], strategy: str) -> dict[str, Any]:
    """Return private memory, clients and seconds of a run on two Ray workers (in a child)."""
    from fedlt import simulate
    from fedlt.config import Config

    with tempfile.TemporaryDirectory() as folder:
        tree = {**settings(data, strategy, "ray"), "output": folder}
        progress, start = AtTheEnd(3), time.perf_counter()
        result = simulate.run(Config.model_validate(tree), progress=progress)
        rows = Path(folder, "tree/1/rounds.jsonl").read_text(encoding="utf-8").splitlines()
    seconds = [json.loads(row)["seconds"] for row in rows]
    return {
        "private_mb": progress.found,
        "round_seconds": [round(b - a, 2) for a, b in zip([0, *seconds], seconds, strict=False)],
        "whole_seconds": round(time.perf_counter() - start, 1),
        "generic_accuracy": result["final"]["generic/accuracy"],
    }


def times(section: dict[str, Any], rounds: int) -> dict[str, Any]:
    """Return the seconds of rounds from the map and from memory, taken in turn (in a child)."""
    import mapped_data

    from fedlt.worker.worker import prepare_process

    prepare_process()
    copied = {
        "dataset": f"{Path(__file__).resolve()}:in_memory",
        "options": {"section": json.dumps(section)},
    }
    sources = {"map": section, "memory": copied}

    base = {**settings(section, "fedavg", "serial"), "rounds": rounds + 2}
    runs = {
        name: mapped_data.Run({**base, "data": {**base["data"], **data}})
        for name, data in sources.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    with runs["map"].grid, runs["memory"].grid:
        for number in range(rounds + 2):
            for name in list(runs) if number % 2 else list(runs)[::-1]:
                seconds[name].append(runs[name].step())
    kept = {name: values[2:] for name, values in seconds.items()}  # the first two warm up
    ratios = [a / b for a, b in zip(kept["map"], kept["memory"], strict=True)]
    medians = {name: round(statistics.median(values), 4) for name, values in kept.items()}
    return {"seconds": medians, "ratio": round(statistics.median(ratios), 3)}


def inspect(section: dict[str, Any]) -> float:
    """Return the seconds of `fedlt inspect`."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "a.yaml")
        file.write_text(json.dumps(settings(section, "fedavg", "serial")))  # JSON is YAML
        start = time.perf_counter()
        command = [sys.executable, "-m", "fedlt", "inspect", str(file)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return round(time.perf_counter() - start, 1)


def child(kind: str, *arguments: Any) -> Any:  # noqa: ANN401 (JSON)
    """Return the answer of a function of this file, called in a process of its own."""
    command = [sys.executable, __file__, "--child", json.dumps([kind, *arguments])]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout.splitlines()[-1])


def measure(top: Path, images: int, rounds: int) -> dict[str, Any]:
    """Return all figures."""
    rows = plan(images)
    write(top, rows)
    save_hugging_face(top, rows)
    given = sections(top)
    facts: dict[str, Any] = {"images": len(rows), "classes": CLASSES, "users": USERS}
    facts["prepare"] = {name: child("prepare", section) for name, section in given.items()}
    facts["inspect_seconds"] = {name: child("inspect", one) for name, one in given.items()}
    facts["alike"] = child("alike", [*given.values()])
    sources = {"digits": {"dataset": "digits", "imbalance_factor": 10}, **given}
    methods = {"fedavg": [*sources], "fedloge": ["digits", "csv"]}
    facts["runs"] = {
        strategy: {name: child("run", sources[name], strategy) for name in names}
        for strategy, names in methods.items()
    }
    print(json.dumps(facts), file=sys.stderr, flush=True)
    facts["rounds"] = child("times", given["folder"], rounds)
    return facts


def main() -> None:
    """Measure everything and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--folder", default=None)
    parser.add_argument("--child")
    given = parser.parse_args()
    if given.child:
        kind, *arguments = json.loads(given.child)
        functions = {one.__name__: one for one in (prepare, inspect, alike, run, times)}
        print(json.dumps(functions[kind](*arguments)))
        return
    if given.folder is not None:
        Path(given.folder).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        print(json.dumps(measure(Path(folder), given.images, given.rounds), indent=2))


if __name__ == "__main__":
    main()
