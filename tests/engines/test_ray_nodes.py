"""A Ray cluster of several nodes, started here: the same bits, and a node that leaves."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

CLUSTER = """
import json
import sys
import time
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from fedlt.config import Config
from fedlt.engines.ray_cluster import count_places, count_workers
from fedlt.engines.ray_pool import ActorPool
from fedlt.progress import Progress
from fedlt.simulate import run

config, files = json.loads(sys.argv[1]), [Path(name) for name in sys.argv[2:]]
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
leaving = cluster.add_node(num_cpus=1)
cluster.add_node(num_cpus=1, num_gpus=1)
cluster.wait_for_nodes()
config["engine"]["address"] = cluster.address
config = Config.model_validate(config)
seen = {"replaced": 0}
replace = ActorPool.replace


def counted(pool, member):
    seen["replaced"] += 1
    replace(pool, member)


ActorPool.replace = counted


class Disturbed(Progress):
    def start(self, total_rounds, done=0):
        seen["workers"] = count_workers(config.engine)
        halves = {"gpus_per_worker": 0.5, "cpus_per_worker": 0.5}
        seen["halves"] = count_places(config.engine.model_copy(update=halves))
        for file in files:
            file.rename(f"{file}.away")

    def advance(self, round, text=""):
        if round == 1:
            cluster.remove_node(leaving, allow_graceful=False)
            while count_places(config.engine) == 3:  # until Ray has noticed
                time.sleep(0.2)

    def stop(self):
        for file in files:
            if not file.exists():
                Path(f"{file}.away").rename(file)


run(config, progress=Disturbed())
Path("seen.json").write_text(json.dumps(seen))
ray.shutdown()
cluster.shutdown()
"""
AVG = """
from dataclasses import dataclass

from strategies import FedAvg


@dataclass(frozen=True)
class Avg(FedAvg):
    pass
"""
SQUARES = """
import numpy as np

from fedlt.data import dataset_from_arrays


def squares():
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 3
    images = rng.integers(0, 250, size=(120, 8, 8)).astype(np.uint8)
    return dataset_from_arrays("squares", images[:90], labels[:90], images[90:], labels[90:])
"""


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(500)
def test_a_cluster_gives_the_bits_of_serial_while_a_node_leaves(lab, tmp_path):
    """Three nodes of one core, one of which goes; the user's files are gone from the first round.

    The worker of that node is replaced, and its successor waits for a place. A worker fits on each
    node; workers of half a core and half a GPU fit twice, on the third.
    """
    files = [tmp_path / "avg.py", tmp_path / "squares.py"]
    for file, text in zip(files, (AVG, SQUARES), strict=True):
        file.write_text(text)
    changes = {
        "strategy": f"{files[0]}:Avg",
        "data": {"dataset": f"{files[1]}:squares", "imbalance_factor": 1, "options": {}},
        "rounds": 6,
    }
    config = lab.fresh(**changes, engine={"name": "ray"})
    done = subprocess.run(
        [sys.executable, "-c", CLUSTER, json.dumps(config.model_dump()), *map(str, files)],
        cwd=tmp_path,
        text=True,
        capture_output=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads((tmp_path / "seen.json").read_text())
    assert seen == {"workers": 3, "halves": 2, "replaced": 1}
    outcome = lab.resume(config)  # it is finished: what it has written is read
    assert [row["round"] for row in outcome.rows] == [1, 2, 3, 4, 5, 6]
    assert outcome.bits == lab.run(**changes).bits
