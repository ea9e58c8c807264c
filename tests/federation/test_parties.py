"""Three parties: what each holds, and that neither server nor client gets at the observer."""

from __future__ import annotations

import ast
import gc
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from built_in import BUILT_IN
from by_hand import play_round
from tiers import once_each
from watched import arrays_in, reachable

from fedlt.client import ClientPlugin
from fedlt.engines.serial import SerialEngine
from fedlt.federation import Observer, ServerView
from fedlt.federation.parties import Parties
from fedlt.flower.server_half import make_server_half
from fedlt.strategy import Strategy
from fedlt.worker.worker import Worker

# ---- nobody but the driver reads the observer

ROOT = Path(__file__).resolve().parents[2]
PARTIES = (
    "strategies/*.py", "clients/*.py", "fedlt/flower/*.py", "fedlt/strategy.py", "fedlt/client.py",
    "fedlt/worker/worker.py", "fedlt/worker/training.py",
)  # fmt: skip
PRIVILEGED = {"Observer", "Parties", "prepare_parties", "FederatedData", "Evaluator", "Scorer"}


def test_code_of_server_and_clients_imports_nothing_of_the_observer():
    paths = [path for pattern in PARTIES for path in sorted(ROOT.glob(pattern))]
    assert len(paths) > 50
    found = {
        (path.name, alias.name)
        for path in paths
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.name in PRIVILEGED
    }
    assert not found


@once_each(BUILT_IN)
def test_only_the_driver_and_what_it_orders_read_the_observer(reference, changes):
    """A run of three rounds with both views: a read from anywhere else raises."""
    readers = reference(**changes).readers
    assert {"fedlt.simulate", "fedlt.worker.scorer", "fedlt.federation.evaluator"} <= readers


def stolen_counts():
    """Return what no client has, from an observer that is found in memory."""
    observer = next(item for item in gc.get_objects() if type(item) is Observer)
    return observer.data.class_counts


@dataclass(frozen=True)
class Thief(Strategy):
    """Reads the observer in one of its verbs."""

    verb: str = ""

    def __getattribute__(self, name):
        if name == object.__getattribute__(self, "verb"):
            stolen_counts()
        return object.__getattribute__(self, name)


@dataclass(frozen=True)
class ThievishPlugin(ClientPlugin):
    """Reads the observer in one of its verbs."""

    verb: str = ""
    __getattribute__ = Thief.__getattribute__


@pytest.mark.parametrize(
    "verb", ["build", "init", "local_update", "objective", "aggregate", "generic", "personal"]
)
def test_a_strategy_that_reads_the_observer_is_caught(lab, verb):
    strategy = {"name": f"{__file__}:Thief", "verb": verb}
    with pytest.raises(Exception, match=r"reads the observer"):
        lab.run(strategy=strategy, rounds=2)


@pytest.mark.parametrize("verb", ["build", "setup", "batches", "views", "loss", "predict"])
def test_a_plugin_that_reads_the_observer_is_caught(lab, verb):
    with pytest.raises(Exception, match=r"reads the observer"):
        lab.run(client={"name": f"{__file__}:ThievishPlugin", "verb": verb}, rounds=2)


# ---- nor can it be reached from what they hold


def found(parties, *roots):
    """Return the observer's things among all that can be reached from ``roots``."""
    objects = reachable(*roots)
    test_set = parties.observer.data.eval_images
    kinds = {type(item).__name__ for item in objects}
    kinds &= {"Observer", "FederatedData", "Parties", "Scorer", "Host", "Evaluator", "Simulation"}
    shared = any(np.may_share_memory(array, test_set) for array in arrays_in(objects))
    return kinds | ({"the test images"} if shared else set())


@once_each(BUILT_IN)
def test_server_and_client_cannot_reach_the_observer(lab, changes):
    """After a task; a worker can reach the training images, so the walk finds what is there."""
    federation = lab.federation(**changes)
    server, worker = make_server_half(federation.view), Worker(federation.shares)
    client = worker.first_client(server.state, 0, server.prior_counts([0]))
    update = worker.train(client)
    assert found(federation, server, worker, client, update) == set()
    images = federation.shares.images
    assert any(np.may_share_memory(array, images) for array in arrays_in(reachable(client)))


def test_an_observer_within_reach_is_found(lab):
    """Whether a view holds it in a closure, a bound method or a plain attribute."""
    federation = lab.federation()
    observer = federation.observer
    for ask in (lambda clients: observer, partial(print, observer), observer.notes):
        view = replace(federation.view, ask_counts=ask)
        assert "Observer" in found(federation, make_server_half(view))
    worker = Worker(federation.shares)
    worker.tests = observer.data.eval_images[3:]
    assert found(federation, worker) == {"the test images"}


# ---- what each party holds


class Nothing:
    """Stands in for the observer: every read raises."""

    def __getattribute__(self, name):
        raise AssertionError(f"the observer is asked for {name}")


@pytest.mark.parametrize("strategy", ["fedavg", "fedloge", "scaffold", "ditto", "centralised"])
def test_rounds_need_no_observer(lab, monkeypatch, strategy):
    monkeypatch.setattr("fedlt.worker.scorer.Scorer.__init__", lambda self, *_: None)
    federation = lab.federation(strategy=strategy)
    alone = Parties(federation.view, federation.shares, Nothing())
    states = []
    for parties in (alone, federation):
        server = make_server_half(parties.view)
        with SerialEngine(parties) as engine:
            for round_ in (1, 2):
                play_round(server, engine, round_)
        states.append(server.state.broadcast)
    assert all(states[0][name].equal(tensor) for name, tensor in states[1].items())


@pytest.mark.parametrize(
    ("source", "expected"), [("own", None), ("secure_sum", "two"), ("oracle", "all")]
)
def test_a_view_tells_the_counts_that_the_file_allows(lab, source, expected):
    use = "local_masked" if source == "own" else "global"
    federation = lab.federation(client="logit_adjustment", prior={"use": use, "source": source})
    counts, labels = federation.view.ask_counts(np.arange(5) < 2), federation.shares.labels
    clients = federation.shares.partition.clients
    kept = np.concatenate([clients[0], clients[1]]) if expected == "two" else slice(None)
    wanted = None if expected is None else np.bincount(labels[kept], minlength=4).tolist()
    assert (counts if counts is None else counts.tolist()) == wanted


def test_a_share_is_one_clients_images_and_counts(lab):
    shares = lab.federation().shares
    positions = np.concatenate([shares.of(cid).positions for cid in range(5)])
    assert sorted(positions.tolist()) == list(range(len(shares.labels)))
    for cid in range(5):
        share = shares.of(cid)
        own = np.bincount(shares.labels[share.positions], minlength=4)
        assert share.class_counts.tolist() == own.tolist()


def test_only_a_strategy_that_pools_gets_everybodys_images(lab):
    with pytest.raises(ValueError, match="does not pool"):
        lab.federation().shares.everybody()
    everybody = lab.federation(strategy="centralised").shares.everybody()
    assert everybody.positions.tolist() == list(range(int(everybody.class_counts.sum())))


def test_a_view_builds_the_model_that_workers_build(lab):
    federation = lab.federation(strategy="fedloge")
    assert type(federation.view) is ServerView
    first, other = federation.view.build_model().state(), federation.shares.build_model().state()
    assert all(first[name].equal(tensor) for name, tensor in other.items())
