"""The round loop: what a run writes, bad updates, stopping, and what it refuses beforehand."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import torch

from fedlt.errors import FedltError, RunError
from fedlt.flower.adapter import NoUsableUpdateError
from fedlt.runs.directory import RunDirectory
from fedlt.simulate import run

FAILING = """
from dataclasses import dataclass
from fedlt.client import ClientPlugin
from fedlt.losses import cross_entropy


@dataclass(frozen=True)
class Failing(ClientPlugin):
    cids: list[int]
    rounds: list[int]
    error: str = ""

    def loss(self, logits, batch, client):
        loss = cross_entropy(logits, batch.labels)
        if client.cid in self.cids and client.round in self.rounds:
            if self.error:
                raise ZeroDivisionError(self.error)
            return loss * float("nan")
        return loss
"""


@pytest.fixture
def failing(tmp_path):
    """Return a plugin section: clients whose loss is not a number in some rounds."""
    path = tmp_path / "failing.py"
    path.write_text(FAILING)
    return lambda cids, rounds, **more: {
        "name": f"{path}:Failing",
        "cids": cids,
        "rounds": rounds,
        **more,
    }


def cohorts(outcome):
    """Return each round's clients, read off the counts of who took part."""
    return [row["personal/participated"] for row in outcome.rows]


# ---- what a run writes


def test_rows_and_result(reference):
    outcome = reference(strategy="fedloge")
    last = outcome.rows[-1]
    for name in ("generic/accuracy", "personal/accuracy", "train/loss", "generic/sse_c/accuracy"):
        assert 0 <= last[name] <= 5
    assert [row["train/clients"] for row in outcome.rows] == [3, 3, 3]
    assert [row["train/excluded"] for row in outcome.rows] == [0, 0, 0]
    result = outcome.result
    assert (result["strategy"], result["client"]) == ("fedloge", "cross_entropy")
    assert (result["rounds"], result["seed"], result["status"]) == (3, 1, "finished")
    assert {k: v for k, v in result["final"].items() if k != "seconds"} == last
    assert result["batchnorm"] == "average"
    assert result["prior"] == {"use": "local_masked", "gamma": 0.5, "source": "own"}
    evaluations = sorted(path.name for path in outcome.directory.evaluations.iterdir())
    assert evaluations == ["clients.npz", "round_1.npz", "round_2.npz", "round_3.npz"]


def test_bytes_by_hand(reference):
    """CNN of width 4 on one channel: 36 + 288 + 1152 weights, norms of 4, 8, 16 channels.

    Shared: 1476 + 2 * 28 parameters + 2 * 28 statistics + head 16 * 4 + 4, in float32, and three
    int64 counters. FedLoGe sends its classifier (4, 16) once.
    """
    shared = 4 * (1476 + 56 + 56 + 68) + 3 * 8
    for strategy, once in (("fedavg", 0), ("fedloge", 4 * 64)):
        result = reference(strategy=strategy).result
        assert result["bytes_down"] == shared
        assert result["bytes_once"] == once


def test_train_loss_is_the_mean_over_examples(lab):
    """One client, one full batch without momentum: the loss of the initial model on its images."""
    changes = {
        "partition": {"num_clients": 1},
        "clients_per_round": None,
        "model": {"norm": "group"},
        "local": {"batch_size": 10_000},
        "rounds": 1,
    }
    federation = lab.federation(**changes)
    model, data = federation.view.build_model(), federation.observer.data
    mean, std = (torch.tensor(value).view(-1, 1, 1) for value in (data.mean, data.std))
    images = (torch.from_numpy(data.train_images.copy()) / 255 - mean) / std
    logits = model(images).squeeze(1)
    expected = torch.nn.functional.cross_entropy(logits, torch.from_numpy(data.train_labels.copy()))
    (row,) = lab.run(**changes).rows
    assert row["train/loss"] == pytest.approx(float(expected.detach()), rel=1e-5)


def test_generic_accuracy_is_that_of_the_saved_model(reference):
    """The checkpoint's tensors, loaded into a new model and applied to the test images by hand."""
    outcome = reference(strategy="fedavg")
    config = outcome.directory.config()
    from fedlt.federation import prepare_parties
    from fedlt.methods.lookup import resolve_client, resolve_strategy

    federation = prepare_parties(config, resolve_strategy(config), resolve_client(config))
    model, data = federation.view.build_model(), federation.observer.data
    model.load_state_dict(outcome.checkpoint.tensors["broadcast"])
    mean, std = (torch.tensor(value).view(-1, 1, 1) for value in (data.mean, data.std))
    images = (torch.from_numpy(data.eval_images.copy()) / 255 - mean) / std
    with torch.no_grad():
        predicted = model.eval()(images).squeeze(1).argmax(1).numpy()
    accuracy = float(np.mean(predicted == data.eval_labels))
    assert outcome.rows[-1]["generic/accuracy"] == pytest.approx(accuracy)


def test_only_scheduled_rounds_are_evaluated(lab):
    """Every 2nd round, the personal view every 4th; of 7 rounds the last k = 1 always, both."""
    outcome = lab.run(rounds=7, evaluate={"every": 2, "personal_every": 4})
    assert [row["round"] for row in outcome.rows] == [2, 4, 6, 7]
    personal = [row["round"] for row in outcome.rows if "personal/accuracy" in row]
    assert personal == [4, 7]


def test_evaluation_does_not_change_training(lab, reference):
    sparse = lab.run(strategy="fedloge", evaluate={"every": 50})
    dense = reference(strategy="fedloge")
    tensors = {k: v for k, v in sparse.bits.items() if k not in ("rows", "meta")}
    assert tensors == {k: v for k, v in dense.bits.items() if k not in ("rows", "meta")}
    assert sparse.rows == dense.rows[-1:]


def test_two_checkpoints_are_kept(reference):
    names = sorted(path.name for path in reference().directory.checkpoints.iterdir())
    assert names == ["round_000002", "round_000003"]


def test_a_finished_run_is_shown_not_repeated(lab):
    config = lab.fresh()
    first = run(config)
    path = RunDirectory.of(config).path / "rounds.jsonl"
    stamp = path.stat().st_mtime_ns
    assert run(config) == first
    assert path.stat().st_mtime_ns == stamp
    with pytest.raises(FedltError, match="another rounds"):
        run(config.model_copy(update={"rounds": 4}))


def test_an_unfinished_run_is_not_overwritten_unasked(lab, reference):
    config = lab.stopped(1)
    with pytest.raises(FedltError, match="resume continues it"):
        run(config)
    assert run(config, overwrite=True)["status"] == "finished"


def test_resume_is_refused_for_another_configuration(lab):
    config = lab.stopped(1)
    changed = config.model_copy(update={"rounds": 5})
    with pytest.raises(FedltError, match="cannot be resumed: another rounds"):
        run(changed, resume=True)


def test_resume_where_nothing_is_starts(lab, reference):
    config = lab.fresh()
    run(config, resume=True)
    assert RunDirectory.of(config).rounds()[-1]["round"] == 3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"strategy": {"name": "fedloge", "sparsity": 1.5}}, "sparsity"),
        ({"strategy": "fedloge", "model": {"width": 1}, "data": {"imbalance_factor": 1}}, "width"),
        ({"strategy": "fedlog"}, "nearest: 'fedloge'"),
        ({"client": "balanced_softmx"}, "nearest: 'balanced_softmax'"),
        ({"model": {"name": "cnm"}}, "nearest: 'cnn'"),
        ({"data": {"dataset": "digit", "options": {}}}, "nearest: 'digits'"),
        ({"partition": {"num_clients": 500}}, "500 clients"),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_written(lab, changes, words):
    if "width" in words:  # 16 features would do for 4 classes; 4 do not for 10
        changes = {**changes, "data": {"options": {"num_classes": 10, "train_per_class": 40}}}
    config = lab.fresh(**changes)
    with pytest.raises(FedltError) as caught:
        run(config)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not lab.output.exists()


# ---- updates that are not finite


@pytest.mark.parametrize("strategy", ["fedavg", "flwr.serverapp.strategy:FedAvg"])
def test_bad_update_is_left_out_and_named(lab, failing, strategy):
    """The others' mean goes on; loss and weights are those of the others alone."""
    changes = {"strategy": strategy, "clients_per_round": None, "rounds": 2}
    outcome = lab.run(**changes, client=failing([1, 3], [2]))
    assert outcome.result["status"] == "finished"
    assert outcome.result["excluded"] == [[2, 1], [2, 3]]
    assert [row["train/clients"] for row in outcome.rows] == [5, 3]
    assert [row["train/excluded"] for row in outcome.rows] == [0, 2]
    clean = lab.run(**changes)
    assert outcome.rows[0] == clean.rows[0]
    assert outcome.rows[1]["train/loss"] != clean.rows[1]["train/loss"]
    assert all(np.isfinite(row["train/loss"]) for row in outcome.rows)
    after = outcome.checkpoint.tensors["broadcast"]
    assert all(bool(tensor.isfinite().all()) for tensor in after.values())


def test_bad_update_leaves_the_mean_of_the_others(lab, failing):
    """By hand: the three finite clients trained one by one, weighted by their images."""
    from fedlt.flower.server_half import make_server_half
    from fedlt.worker.worker import Worker

    changes = {"clients_per_round": None, "rounds": 1}
    federation = lab.federation(**changes)
    worker, server = Worker(federation.shares), make_server_half(federation.view)
    sizes = federation.observer.data.client_counts.sum(axis=1)
    total = 0.0
    name = "backbone.layers.0.weight"
    for cid in (0, 2, 4):
        client = worker.client(
            cid, 1, server.state.broadcast, fixed=server.state.fixed, personal={}
        )
        total = total + worker.train(client).sums[name].double() * int(sizes[cid])
    outcome = lab.run(**changes, client=failing([1, 3], [1]))
    found = outcome.checkpoint.tensors["broadcast"][name]
    expected = (total / int(sizes[[0, 2, 4]].sum())).float()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


def test_bad_clients_keep_their_personal_state(lab, failing):
    """Client 1 fails in round 2: its local head after round 2 is the one of round 1."""
    changes = {"strategy": "fedloge", "clients_per_round": None}
    bad = failing([1], [2])
    after_one = lab.run(**changes, client=bad, rounds=1).personal
    after_two = lab.run(**changes, client=bad, rounds=2).personal
    name = "heads.local.weight"
    assert torch.equal(after_one[1][name], after_two[1][name])
    assert not torch.equal(after_one[0][name], after_two[0][name])


def test_client_whose_first_update_is_bad_is_scored_by_the_generic_model(lab, failing):
    """It has no personal state yet, so it stands where a client stands that never took part."""
    changes = {"strategy": "fedloge", "clients_per_round": None, "rounds": 2}
    outcome = lab.run(**changes, client=failing([1], [1]))
    assert outcome.result["excluded"] == [[1, 1]]
    assert 1 in outcome.personal
    first, second = (row["personal/participated"] for row in outcome.rows)
    assert (first, second) == (0.8, 1.0) or (first, second) == (4, 5)


def test_steps_of_a_bad_update_are_not_counted(lab, failing):
    """``steps`` says how long each committed personal part was trained."""
    changes = {"strategy": "fedloge", "clients_per_round": None, "rounds": 1}
    clean = lab.run(**changes).checkpoint.tensors["participants"]
    assert clean["trained"].tolist() == list(range(5))
    assert min(clean["steps"].tolist()) > 0
    bad = lab.run(**changes, client=failing([1], [1])).checkpoint.tensors["participants"]
    assert bad["heard"].tolist() == list(range(5))
    assert bad["trained"].tolist() == [0, 2, 3, 4]
    assert torch.equal(bad["steps"], clean["steps"][bad["trained"]])


@pytest.mark.slow
@pytest.mark.ray
def test_bad_update_on_ray_equals_serial(lab, failing):
    changes = {"strategy": "fedloge", "client": failing([1, 3], [2])}
    engine = {"name": "ray", "workers": 2}
    assert lab.run(**changes, engine=engine).bits == lab.run(**changes).bits


@pytest.mark.parametrize("strategy", ["fedloge", "flwr.serverapp.strategy:FedAdam"])
def test_run_stops_when_every_update_is_bad(lab, failing, strategy, tmp_path):
    """The checkpoint is that of the last good round, and the run goes on once the cause is gone."""
    changes = {"strategy": strategy, "clients_per_round": None, "checkpoint": {"every": 50}}
    path = tmp_path / "switch"
    plugin = switched(tmp_path, path)
    config = lab.fresh(**changes, client=plugin)
    path.touch()
    with pytest.raises(NoUsableUpdateError, match=r"round 3: no usable update") as caught:
        run(config)
    assert "[0, 1, 2, 3, 4]" in str(caught.value)
    assert isinstance(caught.value, RunError)
    directory = RunDirectory.of(config)
    assert directory.state == "unfinished"
    assert [row["round"] for row in directory.rounds()] == [1, 2]
    assert [p.name for p in directory.checkpoints.glob("round_*")] == ["round_000002"]
    path.unlink()
    resumed = lab.resume(config)
    whole = lab.run(**changes, client=plugin)
    assert resumed.bits == whole.bits
    assert resumed.result["excluded"] == []


def switched(tmp_path, switch):
    """Return a plugin whose loss is infinite in round 3 while a file is there."""
    path = tmp_path / "switched.py"
    path.write_text(
        "from dataclasses import dataclass\n"
        "from pathlib import Path\n"
        "from fedlt.client import ClientPlugin\n\n\n"
        "@dataclass(frozen=True)\n"
        "class Switched(ClientPlugin):\n"
        "    switch: str\n\n"
        "    def loss(self, logits, batch, client):\n"
        "        bad = client.round == 3 and Path(self.switch).exists()\n"
        "        return super().loss(logits, batch, client) * (float('inf') if bad else 1)\n"
    )
    return {"name": f"{path}:Switched", "switch": str(switch)}


def test_first_round_all_bad(lab, failing):
    config = lab.fresh(client=failing([0, 1, 2, 3, 4], [1]))
    with pytest.raises(NoUsableUpdateError, match="round 1"):
        run(config)
    assert [p.name for p in RunDirectory.of(config).checkpoints.iterdir()] == ["round_000000"]


@pytest.mark.parametrize("engine", ["serial", pytest.param("ray", marks=pytest.mark.ray)])
def test_an_error_in_a_client_is_not_swallowed(lab, failing, engine):
    config = lab.fresh(
        client=failing([0, 1, 2, 3, 4], [2], error="by hand"), engine={"name": engine, "workers": 1}
    )
    with pytest.raises(Exception, match="by hand"):
        run(config)
    assert RunDirectory.of(config).state == "unfinished"


# ---- clients without images


def empty_partition(tmp_path, lab):
    """Return a saved partition in which clients 0 and 1 hold everything and 2, 3, 4 nothing."""
    from fedlt.data.partition import Partition

    labels = lab.federation().observer.data.train_labels
    owner = np.arange(len(labels)) % 2
    partition = Partition.from_owner(owner, labels, num_clients=5, num_classes=4)
    partition.save(tmp_path / "partition.json")
    return {"file": str(tmp_path / "partition.json")}


@pytest.mark.parametrize("strategy", ["fedavg", "fedloge", "flwr.serverapp.strategy:FedAdam"])
def test_cohort_without_images_does_not_spoil_the_model(lab, tmp_path, strategy):
    """Cohorts of one client: some of them hold no image, so the sum of the weights is zero."""
    partition = empty_partition(tmp_path, lab)
    changes = {"partition": partition, "clients_per_round": 1, "rounds": 6, "strategy": strategy}
    outcome = lab.run(**changes)
    broadcast = outcome.checkpoint.tensors["broadcast"]
    assert all(bool(tensor.isfinite().all()) for tensor in broadcast.values())


@pytest.mark.parametrize("strategy", ["fedavg", "fedloge"])
def test_clients_without_images_weigh_nothing(lab, tmp_path, strategy):
    """Five clients of which three are empty: the sum is that of the other two."""
    partition = empty_partition(tmp_path, lab)
    outcome = lab.run(partition=partition, clients_per_round=None, strategy=strategy)
    assert outcome.result["status"] == "finished"
    assert 0 < outcome.rows[-1]["train/loss"] < 10
    broadcast = outcome.checkpoint.tensors["broadcast"]
    assert all(bool(tensor.isfinite().all()) for tensor in broadcast.values())


# ---- personal refresh, and files that are there already


def test_seeds_differ_and_a_directory_belongs_to_one(lab):
    first, second = lab.fresh(name="same"), lab.fresh(name="same", seed=2)
    run(first)
    run(second)
    one, two = RunDirectory.of(first), RunDirectory.of(second)
    assert one.path.parent == two.path.parent
    assert one.rounds() != two.rounds()
    stored = json.loads((two.path / "result.json").read_text())
    assert stored["seed"] == 2


def test_relative_output_is_where_the_process_stands(lab, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(lab.config(output="here"))
    assert (tmp_path / "here" / "tiny" / "1" / "result.json").is_file()
    assert os.listdir(tmp_path) == ["here"]
