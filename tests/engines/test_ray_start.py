"""Until a worker of Ray is up, the driver does the jobs of short rounds itself."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
import torch
from by_hand import play_round

from fedlt.engines.auto import weigh_engines
from fedlt.engines.ray import RayEngine
from fedlt.engines.serial import SerialEngine
from fedlt.flower.server_half import make_server_half
from fedlt.worker.scorer import Host

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def federation(lab_factory):
    return lab_factory("start").federation(
        strategy="fedloge", engine={"name": "ray", "workers": 2}, clients_per_round=None
    )


@pytest.fixture
def probe(federation):
    host = Host(federation.shares, federation.observer)
    return weigh_engines("ray", make_server_half(federation.view), host, federation).probe


@pytest.fixture
def done_here(monkeypatch):
    """Jobs that the driver's own engine does."""
    done, real = [], SerialEngine.run_jobs

    def run_jobs(self, jobs):
        done.extend(jobs)
        return real(self, jobs)

    monkeypatch.setattr(SerialEngine, "run_jobs", run_jobs)
    return done


def test_rounds_begin_in_the_driver_and_go_on_at_the_workers(
    federation, probe, done_here, monkeypatch
):
    """Round 1 before Ray is up, round 2 after: the bits of two rounds of the serial engine."""
    server, wanted = (make_server_half(federation.view) for _ in range(2))
    with RayEngine(federation) as engine:
        engine._start.wait()
        starting = threading.Event()
        with monkeypatch.context() as patch:
            patch.setattr(engine._start, "done", starting)
            engine.rehearse(server, probe)
            play_round(server, engine, 1)
            assert len(done_here) == federation.view.num_clients
        engine._pool.welcome(engine._pool.members[0])
        play_round(server, engine, 2)
        assert len(done_here) == federation.view.num_clients
        states = {cid: engine.states()[cid] for cid in engine.states()}
    with SerialEngine(federation) as serial:
        for round_ in (1, 2):
            play_round(wanted, serial, round_)
        for cid, own in states.items():
            assert all(torch.equal(own[n], t) for n, t in serial.states()[cid].items())
    assert server.state.broadcast.keys() == wanted.state.broadcast.keys()
    for name, tensor in wanted.state.broadcast.items():
        assert torch.equal(server.state.broadcast[name], tensor), name


@pytest.mark.parametrize("known", [False, True], ids=["not-measured", "long"])
def test_other_rounds_wait_for_the_workers(federation, probe, done_here, monkeypatch, known):
    server = make_server_half(federation.view)
    long = replace(probe, task_seconds=2.0)
    with RayEngine(federation) as engine:
        engine.rehearse(server, long if known else None)
        play_round(server, engine, 1)
    assert done_here == []
