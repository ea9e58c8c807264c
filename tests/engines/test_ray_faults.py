"""Ray workers that are killed, that answer late, that cannot be placed; addresses of nobody."""

from __future__ import annotations

import socket
import time

import pytest

from fedlt.config import EngineConfig
from fedlt.engines.ray_cluster import check_address, count_places, count_workers
from fedlt.errors import FedltError, RunError
from fedlt.runs.checkpoints import load_checkpoint
from fedlt.runs.directory import RunDirectory
from fedlt.simulate import run

DEADLY = """
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from strategies import FedAvg, FedLoGe


class _Deadly:
    def local_update(self, client):
        update = super().local_update(client)
        time.sleep(self.seconds * (5 - client.cid))
        if [client.cid, client.round] in self.at:
            for number in range(self.times):
                mark = Path(self.folder) / f"{client.cid}-{client.round}-{number}"
                if not mark.exists():
                    mark.touch()
                    os.kill(os.getpid(), signal.SIGKILL)
        return update


@dataclass(frozen=True)
class Avg(_Deadly, FedAvg):
    folder: str = ""
    at: list[list[int]] = ()
    times: int = 1
    seconds: float = 0.0


@dataclass(frozen=True)
class LoGe(_Deadly, FedLoGe):
    folder: str = ""
    at: list[list[int]] = ()
    times: int = 1
    seconds: float = 0.0
"""
RAY = {"name": "ray", "workers": 2}


@pytest.fixture
def deadly(tmp_path):
    """Return a strategy section: tasks that kill their process, and leave marks when they do."""
    path = tmp_path / "deadly.py"
    path.write_text(DEADLY)
    marks = tmp_path / "marks"
    marks.mkdir()
    return lambda name, at, **more: {
        "name": f"{path}:{name}",
        "folder": str(marks),
        "at": at,
        **more,
    }


def marks(tmp_path):
    return sorted(path.name for path in (tmp_path / "marks").iterdir())


@pytest.fixture(scope="module")
def cohorts(reference):
    """The clients of each round, from 1: a function of the seed, read off a run's messages."""
    from fedlt.flower.server_half import make_server_half

    config = reference().directory.config()
    from fedlt.federation import prepare_parties
    from fedlt.methods.lookup import resolve_client, resolve_strategy

    federation = prepare_parties(config, resolve_strategy(config), resolve_client(config))
    server = make_server_half(federation.view)
    return {round_: server.sample(round_, list(range(5))) for round_ in (1, 2, 3)}


@pytest.mark.ray
def test_killed_workers_leave_no_trace(lab, reference, deadly, cohorts, tmp_path):
    """Two at once in the first round; in the second, one that loses its job twice."""
    at = [[cid, 1] for cid in cohorts[1][:2]]
    assert lab.run(strategy=deadly("Avg", at), engine=RAY).bits == reference(strategy="fedavg").bits
    assert len(marks(tmp_path)) == 2
    at = [[cohorts[2][0], 2]]
    outcome = lab.run(strategy=deadly("LoGe", at, times=2), engine=RAY)
    assert outcome.bits == reference(strategy="fedloge").bits
    assert len(marks(tmp_path)) == 4


@pytest.mark.slow
@pytest.mark.ray
def test_a_task_that_kills_three_workers_ends_the_run(lab, deadly, cohorts, tmp_path):
    """One line with client and round; the rounds before it are kept, and the run can go on."""
    cid = cohorts[2][1]
    config = lab.fresh(strategy=deadly("Avg", [[cid, 2]], times=3), engine=RAY)
    with pytest.raises(RunError, match=f"client {cid}, round 2: its worker died 3 times: .+") as no:
        run(config)
    assert "\n" not in str(no.value)
    assert marks(tmp_path) == [f"{cid}-2-{number}" for number in range(3)]
    assert load_checkpoint(RunDirectory.of(config).checkpoints).round == 1
    outcome = lab.resume(config)  # the marks are there: it lives
    assert outcome.bits == lab.run(strategy=deadly("Avg", [])).bits


@pytest.mark.ray
def test_the_order_of_answers_changes_no_bit(lab, reference, deadly):
    """Clients of small ids take longest, so answers come in another order than the cohort's."""
    outcome = lab.run(strategy=deadly("Avg", [], seconds=0.1), engine=RAY | {"workers": 3})
    assert outcome.bits == reference(strategy="fedavg").bits


@pytest.mark.ray
def test_an_error_of_the_task_itself_is_not_tried_again(lab, tmp_path):
    path = tmp_path / "raising.py"
    path.write_text(
        "from dataclasses import dataclass\nfrom pathlib import Path\n\n"
        "from strategies import FedAvg\n\n\n@dataclass(frozen=True)\nclass Raising(FedAvg):\n"
        "    folder: str = ''\n\n    def local_update(self, client):\n"
        "        (Path(self.folder) / f'{client.cid}-{client.round}').open('a').write('x')\n"
        "        return {}['nothing'] if client.round == 2 else super().local_update(client)\n"
    )
    (tmp_path / "marks").mkdir()
    strategy = {"name": f"{path}:Raising", "folder": str(tmp_path / "marks")}
    config = lab.fresh(strategy=strategy, engine={"name": "ray", "workers": 1})
    with pytest.raises(RunError, match=r"raised in client \d, round 2: KeyError: 'nothing'"):
        run(config)
    assert all((tmp_path / "marks" / name).read_text() == "x" for name in marks(tmp_path))
    assert load_checkpoint(RunDirectory.of(config).checkpoints).round == 1


# ---- places


def nodes(*resources):
    return [{"Alive": True, "Resources": one} for one in resources]


@pytest.mark.parametrize(
    ("cluster", "cpus", "gpus", "places"),
    [
        (nodes({"CPU": 4.0}, {"CPU": 3.0}), 1, 0, 7),
        (nodes({"CPU": 4.0}, {"CPU": 3.0}), 2, 0, 3),  # a worker lies on one node
        (nodes({"CPU": 1.0}), 0.1, 0, 10),
        (nodes({"CPU": 8.0, "GPU": 1.0}, {"CPU": 8.0}), 1, 0.25, 4),
        ([{"Alive": False, "Resources": {"CPU": 4.0}}], 1, 0, 0),
    ],
)
def test_places_of_a_cluster_by_hand(monkeypatch, cluster, cpus, gpus, places):
    import ray

    monkeypatch.setattr(ray, "nodes", lambda: cluster)
    config = EngineConfig(address="a:1", cpus_per_worker=cpus, gpus_per_worker=gpus)
    assert count_places(config) == places
    if places:
        assert count_workers(config) == places
        assert count_workers(config.model_copy(update={"workers": 3})) == 3
    else:
        with pytest.raises(FedltError, match="no node has a place for a worker"):
            count_workers(config)


@pytest.mark.ray
def test_gpus_that_are_not_there_are_refused(lab):
    config = lab.fresh(engine=RAY | {"gpus_per_worker": 64})
    with pytest.raises(FedltError, match=r"engine\.gpus_per_worker: 64"):
        run(config)
    assert not RunDirectory.of(config).path.exists()


@pytest.mark.parametrize("name", ["cpus_per_worker", "gpus_per_worker"])
def test_resources_are_shares_or_whole(name):
    assert getattr(EngineConfig(**{name: 2}), name) == 2
    with pytest.raises(ValueError, match=r"1\.5 is neither a share of one nor a whole number"):
        EngineConfig(**{name: 1.5})


# ---- addresses


@pytest.mark.parametrize("address", ["here", "host:", ":6379", "host:0", "host:x", "ray://h"])
def test_an_address_is_host_and_port(address):
    with pytest.raises(FedltError, match="is neither host:port nor auto"):
        check_address(address)


def test_an_address_of_nobody_is_refused_at_once(lab):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # it does not listen
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        config = lab.fresh(engine={"name": "ray", "address": address})
        start = time.monotonic()
        with pytest.raises(FedltError, match=f"nothing answers at {address}: Connection refused"):
            run(config)
    assert time.monotonic() - start < 30  # measured: 0.01 s; Ray itself takes 100 s
    assert not RunDirectory.of(config).path.exists()
