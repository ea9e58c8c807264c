"""Fixtures for tests that run whole rounds: tiny federations, compared by their bits."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"  # no test may call out, whatever it imports first
os.environ.setdefault("OMP_NUM_THREADS", "1")  # as each process of a run; BLAS reads it once

import pytest
import torch
from flwr.supercore.task_identity import TaskIdentity
from pools import make_pool
from sessions import pytest_cmdline_main, pytest_collection_modifyitems, pytest_unconfigure
from torch import Tensor
from watched import watched

from fedlt.check import TINY
from fedlt.check.tiny_runs import (
    StopAfter,
    StopError,
    read_bits,
    read_checkpoint,
    read_groups,
    read_personal,
    read_rows,
)
from fedlt.config import Config
from fedlt.federation import Parties, prepare_parties
from fedlt.methods.lookup import resolve_client, resolve_strategy
from fedlt.runs.checkpoints import Checkpoint
from fedlt.runs.directory import RunDirectory
from fedlt.runs.personal_states import PersonalStates
from fedlt.simulate import run
from fedlt.worker.worker import prepare_process

__all__ = ["pytest_cmdline_main", "pytest_collection_modifyitems", "pytest_unconfigure"]  # hooks
prepare_process()  # as the engines do: more threads would change last bits

TINY_METHODS: dict[str, dict[str, Any]] = {  # what a method adds to a round, made short
    "ccvr": {"per_class": 20, "epochs": 2},
    "creff": {"per_class": 5, "match_steps": 3, "retrain_epochs": 3},
    "fedetf": {"alternations": 1, "tune_epochs": 1},
}
TINY_CLIENTS: dict[str, dict[str, Any]] = {
    "deit_lt": {"width": 16, "depth": 1, "heads": 2, "strong": "distort"},
}


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the tests out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDLT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """Give back what a run sets for its process."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


@pytest.fixture
def identity() -> Iterator[None]:
    """Let a test make Flower messages outside an engine, which sets this when it is entered."""
    names = ("_task_id", "_run_id", "_node_id")
    before = {name: getattr(TaskIdentity, name) for name in names}
    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1
    yield
    for name, value in before.items():
        setattr(TaskIdentity, name, value)


def merge(tree: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return ``tree`` with ``changes`` on top, section by section."""
    merged = dict(tree)
    for name, value in changes.items():
        old = merged.get(name)
        both = isinstance(old, dict) and isinstance(value, dict)
        merged[name] = old | value if both else value
    return merged


@dataclass(frozen=True)
class Outcome:
    """What a finished run left behind."""

    result: dict[str, Any]
    directory: RunDirectory
    readers: frozenset[str] = frozenset()  # modules that have read the observer

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The lines of rounds.jsonl without their seconds."""
        return read_rows(self.directory)

    @property
    def checkpoint(self) -> Checkpoint:
        """The newest checkpoint."""
        return read_checkpoint(self.directory)

    @property
    def personal(self) -> PersonalStates:
        """The personal states of the newest checkpoint by cid."""
        return read_personal(self.directory)

    @property
    def groups(self) -> dict[str, Mapping[str, Tensor]]:
        """The tensors of the newest checkpoint, the personal states of every client among them."""
        return read_groups(self.directory)

    @property
    def bits(self) -> dict[str, Any]:
        """Everything that must not depend on the engine: rounds, tensors as bytes, counts."""
        return read_bits(self.directory)


class Lab:
    """Makes configurations and runs them under one output folder."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self._runs = 0

    def config(self, **changes: Any) -> Config:
        """Return the tiny configuration with changes; a method by its mere name is made short."""
        name = changes.get("strategy")
        if isinstance(name, str) and name in TINY_METHODS:
            changes = {**changes, "strategy": {"name": name, **TINY_METHODS[name]}}
        client = changes.get("client")
        if isinstance(client, str) and client in TINY_CLIENTS:
            changes = {**changes, "client": {"name": client, **TINY_CLIENTS[client]}}
        given = {"name": client} if isinstance(client, str) else client
        if given and given.get("name") == "discl" and set(given) <= {"name", "loss"}:
            changes = {**changes, "client": {**given, "tail_below": 0.8, **self.pool()}}
        return Config.model_validate(merge(TINY | {"output": str(self.output)}, changes))

    def pool(self) -> dict[str, str]:
        """Return the option that names a pool for the tiny configuration's images."""
        path = Path(os.environ["FEDLT_CACHE"]) / "tiny_pool.npz"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            make_pool(self.config(), path)
        return {"pool_path": str(path)}

    def federation(self, **changes: Any) -> Parties:
        """Return the parties of its simulation."""
        config = self.config(**changes)
        return prepare_parties(config, resolve_strategy(config), resolve_client(config))

    def run(self, **changes: Any) -> Outcome:
        """Run it from the start, in a directory of its own."""
        config = self.fresh(**changes)
        with watched() as readers:
            result = run(config)
        return Outcome(result, RunDirectory.of(config), frozenset(readers))

    def fresh(self, **changes: Any) -> Config:
        """Return a configuration whose run directory is new."""
        self._runs += 1
        return self.config(**{"name": f"run-{self._runs}", **changes})

    def stopped(self, after: int, **changes: Any) -> Config:
        """Run until a round is finished, and stop hard there."""
        config = self.fresh(**changes)
        with pytest.raises(StopError):
            run(config, progress=StopAfter(after))
        return config

    def resume(self, config: Config, **engine: Any) -> Outcome:
        """Go on with a stopped run, perhaps on another engine."""
        if engine:
            changed = config.engine.model_copy(update=engine)
            config = config.model_copy(update={"engine": changed})
        return Outcome(run(config, resume=True), RunDirectory.of(config))


@pytest.fixture(scope="session")
def lab_factory(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Lab]:
    """Return what makes a laboratory that outlives one test."""
    return lambda name: Lab(tmp_path_factory.mktemp(name))


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """Return a laboratory of this test's own."""
    return Lab(tmp_path / "runs")


@pytest.fixture(scope="session")
def reference(lab_factory: Callable[[str], Lab]) -> Callable[..., Outcome]:
    """Return a function that runs a configuration on the serial engine once a session."""
    lab = lab_factory("reference")
    known: dict[str, Outcome] = {}

    def of(**changes: Any) -> Outcome:
        key = lab.config(**changes).model_dump_json()
        if key not in known:
            known[key] = lab.run(**changes)
        return known[key]

    return of
