"""Every method on a grid that is not fedlt's: bytes on a wire, random node ids, nodes that fail."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from built_in import BUILT_IN
from flwr.app import Context, RecordDict
from tiers import in_tiers
from wire_grid import WireGrid

from fedlt.apps import make_apps
from fedlt.check.tiny_runs import read_checkpoint, read_rows
from fedlt.errors import FedltError, RunError
from fedlt.flower.records import tensors_of
from fedlt.runs.directory import RunDirectory

pytestmark = pytest.mark.usefixtures("identity")
NODE = {"average_personal": True}  # as a simulation may


@dataclass
class Wired:
    """A finished run on a wire grid."""

    grid: WireGrid
    directory: RunDirectory

    @property
    def result(self) -> dict[str, Any]:
        return self.directory.result()

    @property
    def rows(self) -> list[dict[str, Any]]:
        return read_rows(self.directory)

    def state(self, cid: int) -> dict[str, torch.Tensor]:
        """The newest state in a node's context."""
        records = self.grid.context_of(cid).state
        newest = max(records, key=lambda name: int(name.rpartition(".")[2]), default=None)
        return {} if newest is None else tensors_of(records[newest])


@pytest.fixture
def wired(lab):
    """Return what runs a configuration on a wire grid."""

    def run(*, failures=None, grid=None, config=None, run_config=None, **changes):
        config = config or lab.fresh(**{"deployment": NODE, **changes})
        server, client = make_apps(config)
        if grid is None:
            grid = WireGrid(client, config.partition.num_clients, failures or {})
        server(grid, Context(1, 1, {}, RecordDict(), run_config or {}))
        return Wired(grid, RunDirectory.of(config))

    return run


def check_equal(found, expected):
    assert found.rows == expected.rows
    tensors = read_checkpoint(found.directory).tensors["broadcast"]
    assert tensors.keys() == expected.checkpoint.tensors["broadcast"].keys()
    for name, tensor in expected.checkpoint.tensors["broadcast"].items():
        assert torch.equal(tensors[name], tensor), name


@in_tiers(BUILT_IN, BUILT_IN)
def test_every_method_has_the_numbers_of_serial(wired, reference, changes):
    """Rows with steps and gains, the model's bits, and the personal states at the nodes."""
    found, expected = wired(**changes), reference(**changes)
    check_equal(found, expected)
    assert found.result["generic_model"] == expected.result["generic_model"]
    for cid, state in expected.personal.items():
        own = found.state(cid)
        assert own.keys() == state.keys()
        assert all(torch.equal(own[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize(
    "changes", [{"strategy": "fedrep"}, {"strategy": "fedper"}, {"batchnorm": "local"}]
)
def test_an_average_of_personal_parts_needs_leave(wired, reference, caplog, changes):
    """Without it there is no generic model, and the clients' own are scored as before."""
    caplog.set_level(logging.INFO, "flwr")
    found, expected = (
        wired(**changes, deployment={}, clients_per_round=None),
        reference(**changes, clients_per_round=None),
    )
    assert expected.result["generic_model"] == "average"
    assert found.result["generic_model"] == "none"
    assert "deployment.average_personal=true" in caplog.text
    for row, wanted in zip(found.rows, expected.rows, strict=True):
        assert row["generic/accuracy"] is None
        assert row["personal/gain"] is None
        assert row["personal/accuracy"] == wanted["personal/accuracy"]
        assert row["personal/steps"] == wanted["personal/steps"] > 0


PRIVATE = {"norm": 0.5, "noise_multiplier": 0.5, "delta": 1e-3}


@pytest.mark.parametrize(
    "mechanism",
    ["central", *(pytest.param(n, marks=pytest.mark.slow) for n in ("local", "sample"))],
)
def test_private_runs_have_the_numbers_of_serial(wired, reference, mechanism):
    pytest.importorskip("dp_accounting")
    small = {"name": "mlp", "width": 8, "norm": "none"}
    changes = {"model": small, "strategy": "fedrod", "privacy": PRIVATE | {"mechanism": mechanism}}
    found, expected = wired(**changes), reference(**changes)
    check_equal(found, expected)
    assert found.result["privacy"] == expected.result["privacy"]


# ---- nodes that fail


@pytest.mark.parametrize("kind", ["lost", "error", "raises", "late"])
def test_a_lost_answer_is_a_lost_client(wired, lab, reference, kind):
    """Serial, with the same clients lost: it draws them, and the grid is told which."""
    changes = {"strategy": "fedloge", "clients_per_round": 4, "rounds": 4}
    expected = reference(**changes, faults={"lost": {"rate": 0.3}})
    log = expected.result["faults"]["log"]
    assert len(log) >= 3
    failures = {(round_, cid): kind for round_, cid, _ in log}
    rules = {"deployment": {"timeout": 0.3, "wait": 30.0}}
    found = wired(**changes, **rules, failures=failures)
    assert found.result["faults"]["log"] == log
    check_equal(found, expected)


def test_a_doubled_answer_counts_once(wired, reference):
    failures = {(round_, cid): "doubled" for round_ in (1, 2, 3) for cid in range(5)}
    check_equal(wired(failures=failures, strategy="ditto"), reference(strategy="ditto"))


def test_too_few_answers_stop_the_run_and_it_goes_on(wired, lab, reference):
    """The checkpoint is of the round before, and the nodes have its states."""
    changes = {"strategy": "fedloge", "checkpoint": {"every": 50}}
    config = lab.fresh(**changes, deployment={"timeout": 0.3, "min_replies": 2})
    failures = {(2, cid): "lost" for cid in range(5)}
    grid = WireGrid(lambda *given: make_apps(config)[1](*given), 5, failures)
    with pytest.raises(RunError, match=r"round 2: 0 of 3 clients answered, .*min_replies is 2"):
        wired(config=config, grid=grid)
    assert read_checkpoint(RunDirectory.of(config)).round == 1
    grid.failures = {}
    found = wired(config=config, grid=grid, run_config={"resume": True})
    check_equal(found, reference(strategy="fedloge"))


def test_on_error_stop(wired):
    with pytest.raises(RunError, match=r"client \d: node \d+: .*the disk is full"):
        wired(failures={(2, c): "raises" for c in range(5)}, deployment={"on_error": "stop"})


class Restarts(WireGrid):
    """After round 1, the node of a client is killed and another one is started."""

    kept = None  # its state-dir
    at = 2

    def get_node_ids(self):
        if len([kind for kind, _ in self.sent if kind == "evaluate"]) >= 5 * (self.at - 1):
            self.at = 99
            self.leave(self.cid)
            self.join(self.cid, **({} if self.kept is None else {"state-dir": self.kept}))
        return super().get_node_ids()


def restarted(wired, lab, tmp_path, folder):
    config = lab.fresh(strategy="fedloge", clients_per_round=None, deployment=NODE)
    grid = Restarts(make_apps(config)[1], 5)
    grid.cid, grid.kept = 3, folder
    if folder is not None:
        grid.leave(3)
        grid.join(3, **{"state-dir": folder})
    return wired(config=config, grid=grid)


def test_a_node_that_restarts_has_its_state_in_its_folder(wired, lab, reference, tmp_path):
    found = restarted(wired, lab, tmp_path, str(tmp_path / "states"))
    check_equal(found, reference(strategy="fedloge", clients_per_round=None))
    assert found.result["faults"] is None
    (folder,) = (tmp_path / "states").iterdir()
    assert sorted(path.stem for path in folder.iterdir()) == ["2", "3"]


def test_a_node_that_has_lost_its_state_counts_as_stale(wired, lab, caplog, tmp_path):
    caplog.set_level(logging.INFO, "flwr")
    found = restarted(wired, lab, tmp_path, None)
    assert found.result["faults"]["log"] == [[2, 3, "stale"]]
    assert "round 2: client 3: its node had lost its newest state" in caplog.text
    assert "client 3: now at node" in caplog.text


# ---- wrong nodes


def wrong(lab, *cids, wait=0.1, **changes):
    config = lab.fresh(deployment={"wait": wait}, **changes)
    server, client = make_apps(config)
    grid = WireGrid(client, 0)
    nodes = [grid.join(cid) for cid in cids]
    with pytest.raises((FedltError, RunError)) as error:
        server(grid, Context(1, 1, {}, RecordDict(), {}))
    assert not RunDirectory.of(config).path.exists()
    return str(error.value), sorted(nodes)


def test_wrong_nodes_are_named(lab):
    text, _ = wrong(lab, 0, 1, 3)
    assert text == "after 0.1 s no node is there for clients [2, 4]; deployment.wait is the time"
    text, (node,) = wrong(lab, 17)
    assert text == f"node {node}: partition-id=17, but the run has clients 0 to 4"
    text, nodes = wrong(lab, 2, 2)
    assert text == f"nodes {nodes[0]} and {nodes[1]}: both say partition-id=2"
    text, (node,) = wrong(lab, None)
    wanted = "has no partition-id: flower-supernode --node-config 'partition-id=0'"
    assert text == f"node {node} {wanted}"


def test_a_node_of_another_experiment_is_refused(lab):
    config, other = lab.fresh(), lab.fresh(local={"lr": 0.2})
    grid = WireGrid(make_apps(other)[1], 1)
    (node,) = grid.nodes
    with pytest.raises(FedltError, match=rf"node {node}: another configuration"):
        make_apps(config)[0](grid, Context(1, 1, {}, RecordDict(), {}))


# ---- what travels


def test_messages_are_their_tensors_and_little_else(wired):
    """Both ways within 2 %; the fixed classifier of FedLoGe is made at the node."""
    model = {"name": "mlp", "width": 2048}
    found = wired(strategy="fedloge", model=model, rounds=2, clients_per_round=None)
    tensors = read_checkpoint(found.directory).tensors
    wanted = sum(tensor.nbytes for tensor in tensors["broadcast"].values())
    assert sum(tensor.nbytes for tensor in tensors["fixed"].values()) > 0.02 * wanted
    for log in (found.grid.sent, found.grid.returned):
        sizes = [size for kind, size in log if kind == "train"][5:]  # equal tensors go once
        assert len(sizes) == 5
        assert all(abs(size / wanted - 1) < 0.02 for size in sizes)


def test_a_node_that_makes_another_fixed_part_gets_the_servers(wired, reference, monkeypatch):
    from fedlt.apps import node

    def other(host):
        return {"heads.sse_c.weight": torch.zeros(4, 12)}

    monkeypatch.setattr(node, "_fixed", other)
    node._node.cache_clear()
    found = wired(strategy="fedloge")
    node._node.cache_clear()
    check_equal(found, reference(strategy="fedloge"))
