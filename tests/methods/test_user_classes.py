"""A user's own strategy, plugin, data set and engine: one file each, named in the configuration."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from fedlt.errors import FedltError
from fedlt.worker.worker import Worker

FEDPROX = """
from dataclasses import dataclass

from strategies import FedAvg


@dataclass(frozen=True)
class FedProx(FedAvg):
    mu: float = 0.01

    def objective(self, client, batch):
        loss = super().objective(client, batch)
        live = dict(client.model.named_parameters())
        names = client.model.parameter_names("shared")
        far = sum((live[n] - client.broadcast[n]).square().sum() for n in names)
        return loss + self.mu / 2 * far
"""
FOCAL = """
from dataclasses import dataclass

from fedlt.client import ClientPlugin


@dataclass(frozen=True)
class Focal(ClientPlugin):
    focus: float = 2.0

    def loss(self, logits, batch, client):
        logp = logits.mean(dim=1).log_softmax(dim=1)
        own = logp.gather(1, batch.labels[:, None]).squeeze(1)
        return -((1 - own.exp()) ** self.focus * own).mean()
"""
DATA = """
import numpy as np

from fedlt.data.dataset import dataset_from_arrays


def squares(bright=200):
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    images = rng.integers(0, 50, size=(60, 8, 8)).astype(np.uint8)
    for image, label in zip(images, labels):
        image[label * 2 : label * 2 + 2] += np.uint8(bright)
    return dataset_from_arrays("squares", images[:45], labels[:45], images[45:], labels[45:])
"""
ENGINE = """
from fedlt.engines.engine import Engine, run_job
from fedlt.flower.client_app import make_client_app
from fedlt.worker.scorer import Host


class Slow(Engine):
    \"\"\"A new host for every job.\"\"\"

    def host(self):
        return Host(self.parties.shares, self.parties.observer)

    def run_jobs(self, jobs):
        for job in jobs:
            worker = self.host().worker
            yield run_job(make_client_app(lambda worker=worker: worker), job)

    def run_scores(self, requests):
        for request in requests:
            yield self.host().score(request)
"""


@pytest.fixture
def write(tmp_path):
    def file(name, text):
        path = tmp_path / "mine" / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return str(path)

    return file


ENGINES = [
    {"name": "serial"},
    pytest.param({"name": "ray", "workers": 1}, marks=pytest.mark.ray),
]


@pytest.mark.parametrize("engine", ENGINES, ids=["serial", "ray"])
def test_fedprox_with_mu_zero_is_fedavg(lab, reference, write, engine):
    """Bit for bit: 0 times a finite sum of squares adds zero to loss and gradient."""
    name = f"{write('prox', FEDPROX)}:FedProx"
    outcome = lab.run(strategy={"name": name, "mu": 0.0}, engine=engine)
    assert outcome.bits == reference(strategy="fedavg").bits


def test_fedprox_pulls_towards_the_broadcast(lab, write):
    """A strong pull keeps one round's model nearer to the first one than FedAvg's."""
    name = f"{write('prox', FEDPROX)}:FedProx"
    first = lab.federation().view.build_model().state()
    far = {}
    for mu in (0.0, 1.0):
        outcome = lab.run(strategy={"name": name, "mu": mu}, rounds=1, local={"epochs": 3})
        after = outcome.checkpoint.tensors["broadcast"]
        weights = [n for n in after if n.endswith("weight")]
        far[mu] = sum(float((after[n] - first[n]).square().sum()) for n in weights)
    assert 0 < far[1.0] < 0.8 * far[0.0]


@pytest.mark.slow
@pytest.mark.ray
def test_everything_of_a_users_own_on_ray(lab, write):
    """Strategy, plugin and data set from files: the workers get them by value."""
    changes = {
        "strategy": {"name": f"{write('prox', FEDPROX)}:FedProx", "mu": 0.1},
        "client": {"name": f"{write('focal', FOCAL)}:Focal", "focus": 1.0},
        "data": {"dataset": f"{write('squares', DATA)}:squares", "options": {"bright": 150}},
        "partition": {"num_clients": 3},
    }
    serial = lab.run(**changes)
    assert lab.run(**changes, engine={"name": "ray", "workers": 2}).bits == serial.bits


def test_a_users_loss(lab, reference, write):
    """Focal loss (Lin et al., ICCV 2017) with focus 0 is cross-entropy; with 2 it is smaller."""
    name = f"{write('focal', FOCAL)}:Focal"
    outcome = lab.run(client={"name": name, "focus": 0.0})
    expected = reference().rows[0]["train/loss"]
    assert outcome.rows[0]["train/loss"] == pytest.approx(expected, rel=1e-5)
    focused = lab.run(client={"name": name})
    assert focused.rows[0]["train/loss"] < 0.8 * expected


def test_a_users_loss_by_hand(lab, write):
    name = f"{write('focal', FOCAL)}:Focal"
    federation = lab.federation(client={"name": name, "focus": 2.0})
    worker = Worker(federation.shares)
    state = worker.model.state()
    client = worker.client(1, 1, state, fixed={}, personal={})
    batch = next(iter(client.plugin.batches(client, 0)))
    logits = worker.model(batch.images)
    plain = functional.cross_entropy(logits.squeeze(1), batch.labels, reduction="none")
    expected = ((1 - torch.exp(-plain)) ** 2 * plain).mean()
    found = federation.view.strategy.objective(client, batch)
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-3)


def test_a_users_data_set(lab, write):
    data = {
        "dataset": f"{write('squares', DATA)}:squares",
        "imbalance_factor": 3,
        "options": {"bright": 150},
    }
    changes = {"data": data, "partition": {"scheme": "iid", "num_clients": 3}}
    outcome = lab.run(**changes, local={"epochs": 5}, rounds=8)
    assert outcome.result["status"] == "finished"
    assert outcome.rows[-1]["generic/accuracy"] > 0.9  # bright stripes: hard to miss
    counts = lab.federation(**changes).observer.data.class_counts
    assert counts.tolist() == [15, 8, 5]  # 15 * 3^(-c/2), cut off


def test_a_users_engine(lab, reference, write):
    engine = {"name": f"{write('slow', ENGINE)}:Slow"}
    for strategy in ("fedavg", "fedloge"):
        outcome = lab.run(strategy=strategy, engine=engine)
        assert outcome.bits == reference(strategy=strategy).bits


def test_federation_of_user_classes_travels_by_value(lab, write):
    """What Ray sends: a process that has never seen the file can rebuild the objects."""
    ray = pytest.importorskip("ray")
    from fedlt.config.loading import user_modules

    name = f"{write('prox', FEDPROX)}:FedProx"
    federation = lab.federation(strategy={"name": name, "mu": 0.5})
    for module in user_modules():
        ray.cloudpickle.register_pickle_by_value(module)
    data = ray.cloudpickle.dumps(federation.view.strategy)
    module = type(federation.view.strategy).__module__
    kept = sys.modules.pop(module)
    try:
        assert pickle.loads(data).mu == 0.5
    finally:
        sys.modules[module] = kept


def test_changing_a_users_file_makes_another_run(lab, write):
    from fedlt.runs.directory import RunDirectory

    path = write("prox", FEDPROX)
    config = lab.stopped(1, strategy={"name": f"{path}:FedProx"})
    with open(path, "a") as file:
        file.write("\n\nX = 1\n")
    with pytest.raises(FedltError, match=r"prox\.py has changed"):
        RunDirectory.of(config).decide(config, resume=True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (FEDPROX.replace("FedProx", "FedPrix"), "has no 'FedProx'; nearest: 'FedPrix'"),
        (FEDPROX.replace("import FedAvg", "import FedAwg"), "fails on import"),
        (FEDPROX.replace("@dataclass(frozen=True)", ""), "not a dataclass"),
        (FEDPROX.replace("client, batch", "client"), "must be a method taking"),
        (FEDPROX.replace("(FedAvg)", ""), "is not a class derived from"),
    ],
)
def test_mistakes_in_a_users_file_are_one_line(lab, write, text, words):
    spec = f"{write(f'bad{abs(hash(text))}', text)}:FedProx"
    with pytest.raises(FedltError, match=words) as caught:
        lab.federation(strategy=spec)
    assert "\n" not in str(caught.value)


def test_data_set_of_the_wrong_shape_is_refused(lab, write):
    text = DATA.replace('"squares", images[:45]', '"squares", images[:44]')
    spec = f"{write('short', text)}:squares"
    with pytest.raises(FedltError, match="44 train images and 45 labels"):
        lab.federation(data={"dataset": spec, "options": {}})


PROX = """
from dataclasses import dataclass

from fedlt.strategy import Strategy
from halves import HALF


@dataclass(frozen=True)
class Prox(Strategy):
    mu: float = 0.1

    def objective(self, client, batch):
        far = client.squared_distance(client.broadcast)
        return super().objective(client, batch) + HALF * self.mu * far
"""
ENTRY_POINTS = "[fedlt.strategies]\nother_prox = prox_module:Prox\n"


@pytest.fixture(scope="module")
def rows_of(tmp_path_factory):
    """Return a function: the lines of the rounds of a command, by engine and name of the class.

    The working directory has modules, and an installed package has an entry point.
    """
    folder = tmp_path_factory.mktemp("packages")
    here, site = folder / "here", folder / "site"
    for folder in (here, site, site / "prox-1.0.dist-info"):
        folder.mkdir()
    for name in ("strategies", "clients"):
        (here / name).mkdir()
        (here / name / "__init__.py").write_text("raise RuntimeError('the wrong package')\n")
    (here / "clients" / "focal.py").write_text(FOCAL)
    (here / "my_module.py").write_text(PROX)
    (here / "halves.py").write_text("HALF = 0.5\n")
    (site / "prox_module.py").write_text(PROX.replace("from halves", "from halves_too"))
    (site / "halves_too.py").write_text("HALF = 0.5\n")
    (site / "prox-1.0.dist-info" / "METADATA").write_text("Name: prox\nVersion: 1.0\n")
    (site / "prox-1.0.dist-info" / "entry_points.txt").write_text(ENTRY_POINTS)
    (here / "a.yaml").write_text(
        "name: a\nrounds: 2\nclients_per_round: 3\npartition: {num_clients: 4}\n"
        "data: {dataset: synthetic, options: {num_classes: 4, train_per_class: 40}}\n"
        "model: {width: 4}\nlocal: {batch_size: 8}\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{Path(__file__).parents[2]}{os.pathsep}{site}"}
    code = "import sys; from fedlt.cli import main; sys.exit(main(sys.argv[1:]))"

    @cache
    def rows(engine, name):
        run = f"{name.partition(':')[0]}-{engine}"
        changes = [f"strategy={{name: '{name}', mu: 0.2}}", f"engine.name={engine}", f"name={run}"]
        plugin = "client={name: 'clients/focal.py:Focal', focus: 1.0}"
        done = subprocess.run(
            [sys.executable, "-P", "-c", code, "run", "a.yaml", *changes, plugin],
            cwd=here, env=environment, text=True, capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        lines = (here / "runs" / run / "1" / "rounds.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        return [{k: row[k] for k in row if k not in ("seconds", "run")} for row in rows]

    return rows


def test_a_class_is_found_by_file_module_and_entry_point(rows_of):
    """All three, beside folders called strategies and clients that would break: the same run."""
    assert rows_of("serial", "my_module:Prox") == rows_of("serial", "other_prox")


@pytest.mark.slow
@pytest.mark.ray
def test_ray_workers_find_what_the_driver_finds(rows_of):
    """The module of the working directory and its helper travel by the driver's import path."""
    one, two = rows_of("ray", "my_module:Prox"), rows_of("ray", "other_prox")
    assert one == two == rows_of("serial", "my_module:Prox")


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["stacked", "auto"])
def test_other_engines_run_a_class_of_ones_own(rows_of, engine):
    one, other = rows_of(engine, "my_module:Prox"), rows_of("serial", "my_module:Prox")
    assert one[0]["train/loss"] == pytest.approx(other[0]["train/loss"], rel=1e-4)
