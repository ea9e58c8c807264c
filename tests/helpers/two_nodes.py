"""A tiny experiment of two nodes with images of their own, and what it must give."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
import yaml

from fedlt.check import TINY
from fedlt.check.tiny_runs import read_checkpoint, read_rows
from fedlt.config import Config
from fedlt.runs.directory import RunDirectory
from fedlt.simulate import run

CLASSES = ["ape", "bee", "cat", "dog"]


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


def seconds_to_start(federation):
    """Return what a node's task takes to start here and now: Flower starts a process for each."""
    start = time.monotonic()
    federation.call("python", "-c", "import torch, flwr.clientapp")
    return time.monotonic() - start


def flower_run(federation, *, resume=False):
    """Start the run, and return the number that Flower gives it."""
    values = f'output="{federation.folder / "runs"}" resume={str(resume).lower()}'
    told = federation.call("flwr", "run", "app", "fedlt", "--format", "json", "-c", values)
    return str(json.loads(told)["run-id"])


def check_finished(directory, rounds):
    result = directory.result()
    assert result["status"] == "finished"
    assert [row["round"] for row in read_rows(directory)] == list(range(1, rounds + 1))
    assert result["generic_model"] == "shared"
    table = read_checkpoint(directory).tensors["personal"]
    assert table["at_node"].tolist() == [0, 1]
    assert table["round"].tolist() == [rounds, rounds]


def start_with_states(federation, cid, *options):
    """Start a node that keeps personal states in a folder."""
    places = {"data": federation.folder / str(cid), "state-dir": federation.folder / f"states{cid}"}
    federation.start_node(cid, *options, **places)


def simulated(federation, rounds):
    """Return the rows of a simulation that has the images of both nodes."""
    options = {"path": str(federation.folder / "all.npz")}
    given = TINY | {"name": "all", "strategy": "fedloge", "rounds": rounds, "clients_per_round": 2}
    given |= {"data": {"dataset": "npz", "options": options}, "partition": {"scheme": "natural"}}
    given |= {"evaluate": {"local_test": "own"}}
    config = Config.model_validate(given | {"output": str(federation.folder / "runs")})
    run(config)
    return RunDirectory.of(config).rounds()


def assert_rows_equal(rows, wanted):
    """Compare what the nodes scored and trained with a simulation's rows."""
    for row, other in zip(rows, wanted, strict=True):
        for name in ("personal/accuracy", "personal/local/accuracy", "train/loss"):
            assert row[name] == pytest.approx(other[name], rel=1e-5), name
