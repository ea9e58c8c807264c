"""Tiny federation on which a method is tried, with one worker and one server."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from fedlt.check.tiny_runs import Finished, run_whole
from fedlt.client import Client
from fedlt.config import Config, PluginConfig
from fedlt.config.loading import is_spec
from fedlt.errors import FedltError
from fedlt.federation import Parties, prepare_parties
from fedlt.flower.server_half import make_server_half
from fedlt.methods.lookup import plugin_section, resolve_client, resolve_strategy
from fedlt.strategy import Tensors, Update, prefixed
from fedlt.worker.worker import Worker

PluginSection = Literal["strategy", "client"]
Frozen = tuple[dict[str, bytes], float, dict[str, float]]

TINY: dict[str, Any] = {  # 5 clients, 4 classes, 8 x 8 images, 3 clients a round: 0.2 s
    "name": "tiny",
    "rounds": 3,
    "clients_per_round": 3,
    "data": {
        "dataset": "synthetic",
        "imbalance_factor": 5,
        "options": {"num_classes": 4, "train_per_class": 40, "test_per_class": 10},
    },
    "partition": {"num_clients": 5},
    "model": {"width": 4},
    "local": {"batch_size": 8, "lr": 0.1, "momentum": 0.5},
    "engine": {"name": "serial"},
    "checkpoint": {"every": 1},
}
ROUNDS = 2


def raw(tensors: Mapping[str, Tensor]) -> dict[str, bytes]:
    """Return tensors by value, as bytes."""
    return {name: t.detach().contiguous().numpy().tobytes() for name, t in tensors.items()}


def frozen(update: Update) -> Frozen:
    """Return an update by value."""
    parts = (update.sums, prefixed("plain/", update.plain), prefixed("own/", update.personal))
    return raw({n: t for part in parts for n, t in part.items()}), update.weight, update.metrics


class Bench:
    """Worker and server of a federation, new for every trial."""

    def __init__(self, parties: Parties) -> None:
        self.worker = Worker(parties.shares)
        self.server = make_server_half(parties.view)

    def client(
        self,
        cid: int,
        *,
        round_: int = 1,
        personal: Tensors | None = None,
        broadcast: Mapping[str, Tensor] | None = None,
    ) -> Client:
        """Return a client, loaded as the client app does."""
        state = self.server.state
        return self.worker.client(
            cid,
            round_,
            state.broadcast if broadcast is None else broadcast,
            fixed=state.fixed,
            personal=personal or {},
            global_counts=self.server.prior_counts([0, 1, 2]),
        )

    def task(self, cid: int, *, round_: int = 1, personal: Tensors | None = None) -> Update:
        """Return the update of one client's task, as in the client app; its tensors are live."""
        return self.worker.train(self.client(cid, round_=round_, personal=personal))


@dataclass
class Subject:
    """Class under test, in a tiny configuration."""

    config: Config
    section: PluginSection = "strategy"  # the section of the configuration under test
    ray: bool = False  # True: compare with the Ray engine, too

    @cached_property
    def parties(self) -> Parties:
        """Parties of a simulation with the class under test."""
        config = self.config
        return prepare_parties(config, resolve_strategy(config), resolve_client(config))

    @property
    def value(self) -> object:
        """Object under test."""
        parties = self.parties
        return parties.view.strategy if self.section == "strategy" else parties.view.plugin.parts[0]

    @cached_property
    def reference(self) -> Finished:
        """Finished run of the class under test on the serial engine."""
        return run_whole(self.config)

    def bench(self) -> Bench:
        """Return a new worker and server."""
        return Bench(self.parties)


def subject_of(
    target: str | type,
    options: Mapping[str, object],
    *,
    beside: str = "",
    ray: bool = False,
    folder: Path | None = None,
) -> Subject:
    """Return the subject of a name or a class.

    Args:
        target: A built-in name, an entry point, ``file.py:Class``, ``package.module:Class``, or the
            class itself.
        options: The hyperparameters.
        beside: The client plugin to try a strategy with, or the strategy to try a plugin with.
        ray: True to compare with the Ray engine, too.
        folder: The folder from which relative paths start; the working directory by default.

    Raises:
        FedltError: If the name, the class or a hyperparameter is not valid.
    """
    name = _named(target) if isinstance(target, type) else _absolute(target, folder or Path.cwd())
    section = plugin_section(name)
    chosen = {section: PluginConfig(name=name, options=dict(options))}
    if beside:
        other: PluginSection = "client" if section == "strategy" else "strategy"
        chosen[other] = PluginConfig(name=_absolute(beside, folder or Path.cwd()))
    config = Config.model_validate({**TINY, "rounds": ROUNDS, **chosen})
    resolve_strategy(config)
    resolve_client(config)
    return Subject(config, section, ray)


def _named(target: type) -> str:
    if "." in target.__qualname__:
        place = inspect.getmodule(target)
        where = getattr(place, "__name__", "?")
        raise FedltError(f"{target.__qualname__} must stand at the top of its module {where}")
    return f"{target.__module__}:{target.__qualname__}"


def _absolute(name: str, folder: Path) -> str:
    source, _, attribute = name.rpartition(":")
    if not (is_spec(name) and source.endswith(".py")):
        return name
    return f"{folder.absolute() / Path(source).expanduser()}:{attribute}"
