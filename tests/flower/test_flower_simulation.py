"""The same apps under Flower's own simulation, in a process of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from fedlt.runs.checkpoints import load_checkpoint
from fedlt.runs.directory import RunDirectory

SCRIPT = """
import json, os, sys
import fedlt.flower
assert os.environ["FLWR_TELEMETRY_ENABLED"] == "0"
from flwr.simulation import run_simulation
from fedlt.config import Config
from fedlt.apps import make_apps

config = Config.model_validate_json(sys.stdin.read())
server_app, client_app = make_apps(config)
run_simulation(
    server_app,
    client_app,
    num_supernodes=config.partition.num_clients,
    backend_config={"client_resources": {"num_cpus": 1.0}, "init_args": {"num_cpus": 2}},
)
"""


def simulate(config, folder):
    environment = {n: v for n, v in os.environ.items() if not n.startswith(("FLWR", "RAY"))}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input=config.model_dump_json(),
        text=True,
        capture_output=True,
        env=environment,
        cwd=folder,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return RunDirectory.of(config)


STRATEGIES = [  # in the fast tier, test_wire_grid.py has every method
    pytest.param("fedavg", marks=pytest.mark.slow),
    pytest.param("fedloge", marks=pytest.mark.slow),
    pytest.param("flwr.serverapp.strategy:FedAdam", marks=pytest.mark.slow),
]


@pytest.mark.flower
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_flowers_simulation_equals_the_serial_engine(lab, reference, tmp_path, strategy):
    """Same client tasks, same order of sums: equal up to rounding, and equal hits."""
    directory = simulate(lab.fresh(strategy=strategy), tmp_path)
    expected = reference(strategy=strategy)
    assert directory.result()["status"] == "finished"
    tensors = load_checkpoint(directory.checkpoints).tensors
    for name, tensor in expected.checkpoint.tensors["broadcast"].items():
        torch.testing.assert_close(tensors["broadcast"][name], tensor, rtol=1e-5, atol=1e-6)
    assert len(tensors["personal"]["cid"]) == 0  # they stay on nodes
    for row, wanted in zip(directory.rounds(), expected.rows, strict=True):
        assert row["generic/accuracy"] == wanted["generic/accuracy"]
        assert row["personal/accuracy"] == pytest.approx(wanted["personal/accuracy"])
        assert row["train/loss"] == pytest.approx(wanted["train/loss"], rel=1e-5)


@pytest.mark.slow
@pytest.mark.flower
def test_faults_under_flowers_simulation_equal_those_of_the_serial_engine(lab, reference, tmp_path):
    """Who is lost or cut short, wrong steps, and states that the nodes must not store."""
    changes = {
        "strategy": "fedloge",
        "clients_per_round": None,
        "faults": {
            "lost": {"rate": 0.2},
            "straggler": {"deadline": 0.8, "spread": 0.3},
            "late": {"share": 0.4, "first": 2, "last": 3},
            "corrupt": {"share": 0.4, "kind": "scale", "factor": -0.5},
            "stale": {"rate": 0.6},
            "detect": {"max_ratio": 1e6},
        },
    }
    directory, expected = simulate(lab.fresh(**changes), tmp_path), reference(**changes)
    found = directory.result()["faults"]
    assert found == expected.result["faults"]
    assert min(found[kind] for kind in ("lost", "partial", "corrupt", "stale")) > 0
    for row, wanted in zip(directory.rounds(), expected.rows, strict=True):
        assert row["generic/accuracy"] == wanted["generic/accuracy"]
        assert row["personal/accuracy"] == pytest.approx(wanted["personal/accuracy"])
        assert row["train/loss"] == pytest.approx(wanted["train/loss"], rel=1e-5)


def test_apps_can_be_pickled_and_load_nothing(lab, tmp_path):
    """Made from a configuration whose data set is missing: only running them would fail."""
    import ray.cloudpickle

    from fedlt.apps import make_apps

    config = lab.config(data={"dataset": str(tmp_path / "missing.py:load"), "options": {}})
    for app in make_apps(config):
        copy = ray.cloudpickle.loads(ray.cloudpickle.dumps(app))
        assert type(copy) is type(app)
    assert json.loads(config.model_dump_json())["data"]["dataset"].endswith("missing.py:load")
