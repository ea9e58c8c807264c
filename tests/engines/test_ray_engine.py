"""The Ray engine: sharing, order, reuse of the cluster, and a user's folders in its way."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from by_hand import play_round, tasks_of
from flwr.app import ArrayRecord

from fedlt.config.loading import check_packages
from fedlt.engines.engine import Job
from fedlt.engines.shared_memory import Areas
from fedlt.errors import FedltError
from fedlt.flower.records import array_record, tensors_of
from fedlt.flower.server_half import make_server_half
from fedlt.runs.personal_states import PersonalStates

ROOT = Path(__file__).resolve().parents[2]
FEDLT = Path(sys.executable).parent / "fedlt"
EXPERIMENT = """
name: here
rounds: 2
clients_per_round: 2
data:
  dataset: synthetic
  options: {num_classes: 4, train_per_class: 20, test_per_class: 5}
partition: {num_clients: 3}
model: {width: 4}
engine: {name: ray, workers: 1}
"""


@pytest.fixture(scope="module")
def federation(lab_factory):
    return lab_factory("ray").federation(
        strategy="fedloge", engine={"name": "ray", "workers": 2}, clients_per_round=None
    )


@pytest.fixture(scope="module")
def running(federation):
    from fedlt.engines.ray import RayEngine

    with RayEngine(federation) as engine:
        yield engine


@pytest.fixture
def engine(running):
    """One pair of workers for all tests here, without personal states."""
    running.states().restore(PersonalStates().flush(), round=0)
    return running


@pytest.mark.ray
def test_replies_come_in_the_order_of_the_messages(federation, engine):
    """Clients are started largest first; send_and_receive still answers in order."""
    server = make_server_half(federation.view)
    sent = tasks_of(server, engine)
    cids = [message.metadata.dst_node_id for message in sent]
    for order in (sent, sent[::-1]):
        replies = engine.send_and_receive(order)
        assert [r.metadata.src_node_id for r in replies] == (cids if order is sent else cids[::-1])
    assert engine.states() == {}
    engine.commit([1, 3])
    assert sorted(engine.states()) == [1, 3]
    first = engine.states()[1]["heads.local.weight"]
    assert first.shape == (4, 16)


@pytest.mark.ray
@pytest.mark.parametrize("is_shared", [True, False], ids=["shared-memory", "object-store"])
def test_the_broadcast_is_written_once_a_round_and_the_fixed_part_once(
    federation, engine, monkeypatch, is_shared
):
    import ray

    server = make_server_half(federation.view)
    play_round(server, engine, 1)  # a worker is up, and has said that it can map the memory
    if not is_shared:
        monkeypatch.setattr(engine, "_memory", None)
    written, put, write = [], ray.put, Areas.write

    def noted(areas, name, value, memory):
        written.append(value)
        return write(areas, name, value, memory)

    monkeypatch.setattr(ray, "put", lambda value: written.append(value) or put(value))
    monkeypatch.setattr(Areas, "write", noted)
    server.fixed = array_record(tensors_of(server.fixed))
    for round_ in (2, 3):
        play_round(server, engine, round_)
    records = [value for value in written if isinstance(value, ArrayRecord)]
    assert len(records) == 3  # two broadcasts and one fixed part
    assert sum(record is server.fixed for record in records) == 1


@pytest.mark.ray
def test_messages_and_jobs_are_not_changed_by_sending(federation, engine):
    server = make_server_half(federation.view)
    sent = tasks_of(server, engine)
    arrays = sent[0].content["arrays"]
    job = Job([sent[0]], [engine.context(0)], reduce=True)
    (first,), (second,) = ([r.replies[0] for r in engine.run_jobs([job])] for _ in range(2))
    assert sent[0].content["arrays"] is arrays
    assert list(job.contexts[0].state) == []
    one, two = (tensors_of(reply.content["arrays"]) for reply in (first, second))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.ray
def test_no_jobs_no_answers(federation, engine):
    assert list(engine.run_jobs([])) == []
    assert list(engine.run_scores([])) == []


def fedlt(folder, *arguments, command=(str(FEDLT),)):
    environment = {name: v for name, v in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [*command, "run", "here.yaml", *arguments],
        cwd=folder,
        env=environment,
        text=True,
        capture_output=True,
        timeout=200,
        check=False,
    )


@pytest.fixture
def intruded(tmp_path):
    """A folder with an experiment, and folders called strategies and clients that break."""
    (tmp_path / "here.yaml").write_text(EXPERIMENT)
    for name in ("strategies", "clients"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('the wrong package')\n")
    return tmp_path


@pytest.mark.slow
@pytest.mark.ray
def test_the_command_runs_beside_folders_of_the_same_names(intruded):
    """Named by its file, the user's own strategies/mine.py is what is meant.

    It is slow, so the driver waits for the workers, and prints where a task runs.
    """
    (intruded / "strategies" / "mine.py").write_text(
        "import os\nimport time\nfrom dataclasses import dataclass\n\n"
        "from strategies import FedAvg\n\n\n"
        "@dataclass(frozen=True)\nclass Mine(FedAvg):\n"
        "    def objective(self, client, batch):\n"
        "        time.sleep(0.5)\n"
        f"        open({str(intruded / 'processes')!r}, 'a').write(f'{{os.getpid()}}\\n')\n"
        "        return super().objective(client, batch)\n"
    )
    done = fedlt(intruded, "strategy=strategies/mine.py:Mine")
    assert len(set((intruded / "processes").read_text().split())) == 2  # the probe's, the worker's
    assert done.returncode == 0, done.stderr
    assert "wrong package" not in done.stdout + done.stderr
    assert (intruded / "runs" / "here" / "1" / "result.json").is_file()


GONE = """
import os, shutil
from pathlib import Path
from fedlt.config import load_config
from fedlt.simulate import run
file, gone = Path("here.yaml").resolve(), Path("gone").resolve()
gone.mkdir()
os.chdir(gone)
for workers in (1, 2):
    run(load_config(str(file), [f"engine.workers={workers}", f"name=w{workers}"]))
    os.chdir(file.parent)
    shutil.rmtree(gone, ignore_errors=True)
"""


@pytest.mark.slow
@pytest.mark.ray
def test_workers_start_after_the_working_directory_has_gone(tmp_path):
    """The second run needs a new worker, which Ray's server starts where that server stands."""
    (tmp_path / "here.yaml").write_text(f"{EXPERIMENT}output: {tmp_path / 'runs'}\n")
    subprocess.run([sys.executable, "-c", GONE], cwd=tmp_path, timeout=100, check=True)
    assert (tmp_path / "runs" / "w2" / "1" / "result.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("text", ["raise RuntimeError('wrong')", "STRATEGIES = CLIENTS = {}"])
def test_python_m_beside_such_folders_runs(intruded, text):
    """`python -c` and `python -m` put the working directory first; ours are imported past it."""
    for name in ("strategies", "clients"):
        (intruded / name / "__init__.py").write_text(f"{text}\n")
    code = "import sys; from fedlt.cli import main; sys.exit(main(sys.argv[1:]))"
    done = fedlt(intruded, "engine.name=serial", command=(sys.executable, "-c", code))
    assert done.returncode == 0, done.stderr
    assert (intruded / "runs" / "here" / "1" / "result.json").is_file()


@pytest.mark.parametrize("name", ["strategies", "clients"])
@pytest.mark.parametrize("package", [True, False], ids=["package", "plain-folder"])
def test_check_packages_imports_past_the_intruder(tmp_path, name, package):
    """As a worker does it: in a fresh process whose path has the intruder in front."""
    (tmp_path / name).mkdir()
    if package:
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('imported')\n")
    code = (
        "from fedlt.config.loading import check_packages\n"
        "check_packages()\n"
        f"import {name}\n"
        f"print({name}.__file__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    home = Path(__file__).resolve().parents[2]
    assert Path(done.stdout.strip()).resolve() == home / name / "__init__.py"


def test_check_packages_is_content_here():
    check_packages()


def test_check_packages_sees_what_is_imported_already(monkeypatch, tmp_path):
    import types
    from importlib.machinery import ModuleSpec

    intruder = types.ModuleType("clients")
    intruder.__spec__ = ModuleSpec(
        "clients", None, origin=str(tmp_path / "clients" / "__init__.py")
    )
    monkeypatch.setitem(sys.modules, "clients", intruder)
    with pytest.raises(FedltError, match="package 'clients' comes from"):
        check_packages()
