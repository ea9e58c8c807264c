"""Ray actors that several runs of one process use: nothing of a run is left for the next one."""

from __future__ import annotations

import os
import random
import signal
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch

from fedlt.engines import ray_crew
from fedlt.errors import RunError

RAY = {"name": "ray", "workers": 2}
SCALED = """
from dataclasses import dataclass

from strategies import FedAvg


@dataclass(frozen=True)
class Scaled(FedAvg):
    def local_update(self, client):
        update = super().local_update(client)
        update.metrics["loss"] = {loss} * update.weight
        return update
"""


@pytest.fixture
def crew():
    """Return the actors without a run."""
    from fedlt.config import EngineConfig
    from fedlt.engines.ray_cluster import start_ray

    start = start_ray(EngineConfig(**RAY))
    start.wait()
    return start.crew


def idle(crew, call=lambda worker: os.getpid()):
    """Return what every actor without a run answers: its process's id."""
    import ray

    return ray.get([actor.__ray_call__.remote(call) for _, actor in crew.idle])


@pytest.mark.slow
@pytest.mark.ray
def test_an_actor_that_is_used_again_gives_the_bits_of_a_new_one(lab, crew):
    """Another method, seed and number of classes in between; peak memory and seconds may differ."""
    crew.take("no kind", 0)  # ends those of earlier tests
    first = lab.run(strategy="fedloge", engine=RAY)
    actors = sorted(idle(crew))
    lab.run(strategy="ditto", client="mixup", seed=2, engine=RAY, rounds=2)
    again = lab.run(strategy="fedloge", engine=RAY)
    assert sorted(idle(crew)) == actors
    assert again.rows == first.rows
    assert again.bits == first.bits


@pytest.mark.slow
@pytest.mark.ray
def test_an_edited_file_is_read_anew_in_new_actors(lab, crew, tmp_path):
    """The loss is what the file says, at once after it was written with the same length."""
    path = tmp_path / "scaled.py"
    seen = []
    for loss in (1.25, 2.25, 2.25):
        path.write_text(SCALED.format(loss=loss))
        outcome = lab.run(strategy=f"{path}:Scaled", engine=RAY | {"workers": 1}, rounds=1)
        assert outcome.rows[-1]["train/loss"] == loss
        seen += idle(crew)
    assert seen[0] != seen[1] == seen[2]


@pytest.mark.ray
@pytest.mark.slow
def test_a_dead_and_a_hung_actor_are_replaced(lab, reference, crew, monkeypatch):
    monkeypatch.setattr(ray_crew, "SILENCE", 2.0)
    lab.run(engine=RAY | {"workers": 3})
    dead, hung, well = idle(crew)  # all of them have started
    os.kill(dead, signal.SIGKILL)
    os.kill(hung, signal.SIGSTOP)
    outcome = lab.run(engine=RAY | {"workers": 3})
    assert outcome.bits == reference().bits
    assert well in idle(crew)
    assert not {dead, hung} & {*idle(crew)}


@pytest.mark.ray
@pytest.mark.slow
def test_memory_does_not_grow_with_runs(lab, crew):
    """A model that stays would show as its 3 MiB a run. Measured: 0.1 MiB a run, falling."""

    def anonymous(worker):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

    seen = []
    for _ in range(20):
        lab.run(model={"width": 96}, rounds=1, engine=RAY | {"workers": 1})
        seen += idle(crew, anonymous)
    assert (seen[-1] - seen[4]) / 15 < 1024


@pytest.mark.slow
@pytest.mark.ray
def test_fewer_workers_and_errors_end_actors(lab, crew, tmp_path):
    lab.run(engine=RAY)
    two = idle(crew)
    lab.run(engine=RAY | {"workers": 1})
    (one,) = idle(crew)
    assert one in two
    path = tmp_path / "scaled.py"
    path.write_text(SCALED.format(loss="{}['nothing']"))
    with pytest.raises(RunError, match="nothing"):
        lab.run(strategy=f"{path}:Scaled", engine=RAY | {"workers": 1})
    assert idle(crew) == []


def test_an_actor_at_rest_is_as_a_new_one(lab):
    """Nothing holds its model and data; random numbers are torch's first ones, or nobody's."""
    pytest.importorskip("ray")
    from fedlt.engines.ray_worker import RayWorker

    worker = RayWorker([])
    first = torch.rand(3)
    parties = lab.federation(strategy="fedloge")
    torch.set_rng_state(worker._generator)
    worker.setup((parties.shares, parties.observer), None)
    model = worker._host.worker.model
    held = [weakref.ref(one) for one in (parties.shares, parties.observer, worker._host, model)]
    del parties, model
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)
    worker.rest()
    assert [one() for one in held] == [None] * 4
    assert torch.equal(torch.rand(3), first)
    assert random.random() != random.Random(3).random()
    assert np.random.rand() != np.random.RandomState(3).rand()
    worker.rest()  # one that has nothing to forget
