"""Run a stock Flower strategy (FedAdam, Krum, ...) named in a fedlt file.

It gets FedAvg's client half. Only trainable shared parameters pass through it: an adaptive server
step on BatchNorm's running variance turns it negative. The buffers are averaged here.
"""

from __future__ import annotations

import copy
import inspect
import logging
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from flwr.serverapp.strategy import Strategy as FlowerBase

from fedlt.errors import FedltError, RunError, nearest
from fedlt.flower.adapter import ServerHalf
from fedlt.flower.records import array_record, metric_record, tensors_of, with_content
from fedlt.flower.replies import metric_lists
from fedlt.models import Model
from fedlt.rng import key
from fedlt.strategy import ServerState, Strategy, Tensors

if TYPE_CHECKING:
    from fedlt.federation.federation import Federation

SAMPLING = ("fraction_train", "fraction_evaluate", "min_train_nodes", "min_evaluate_nodes")


@dataclass(frozen=True)
class StockStrategy(Strategy):
    """A Flower strategy class and its options; the client half is the defaults: FedAvg's."""

    reduces: ClassVar[bool] = False
    factory: Callable[..., FlowerBase] = FedAvg
    options: dict[str, Any] = field(default_factory=dict)

    def make(self, num_clients: int, cohort_size: int) -> FlowerBase:
        """Construct the strategy; ``clients_per_round`` sets the cohort.

        Raises:
            FedltError: If the class does not take an option, or refuses its value.
        """
        known = inspect.signature(self.factory).parameters
        for name in self.options:
            if name not in known or name in SAMPLING:
                choices = [choice for choice in known if choice not in SAMPLING]
                raise FedltError(f"strategy.{name}: unknown option{nearest(name, choices)}")
        sampling = {
            "fraction_train": 1e-9,
            "fraction_evaluate": 1e-9,
            "min_train_nodes": cohort_size,
            "min_evaluate_nodes": cohort_size,
            "min_available_nodes": num_clients,
        }
        chosen = {option: value for option, value in sampling.items() if option in known}
        name = getattr(self.factory, "__name__", repr(self.factory))
        try:
            return self.factory(**chosen, **self.options)
        except (TypeError, ValueError) as error:
            raise FedltError(f"strategy: {name} refuses: {error}") from error


class StockFlowerStrategy(ServerHalf):
    """The round loop's view of a stock strategy."""

    reduces = False

    def __init__(self, strategy: StockStrategy, model: Model, federation: Federation) -> None:
        super().__init__(federation, model, strategy.init(model))
        logging.getLogger("flwr").setLevel(logging.ERROR)
        config = federation.config
        cohort_size = config.clients_per_round or federation.num_clients
        if config.faults.late.share:
            raise FedltError(
                f"faults.late: {strategy.factory.__name__} samples its clients itself, from all of "
                "them; use a strategy of fedlt's"
            )
        self.stock = strategy.make(federation.num_clients, cohort_size)
        self._trained = model.parameter_names("shared")

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """Let the strategy choose its clients, and give them the whole broadcast."""
        state = random.getstate()
        random.seed(key(self.federation.seed, "cohort", server_round))
        try:
            trained = array_record({name: self.state.broadcast[name] for name in self._trained})
            messages = list(self.stock.configure_train(server_round, trained, config, grid))
        finally:
            random.setstate(state)
        messages.sort(key=lambda message: message.metadata.dst_node_id)
        by_cid = {message.metadata.dst_node_id: message for message in messages}
        asked = self.ask(server_round, list(by_cid))
        settings = self.round_config(server_round, asked)
        for cid in asked:
            told = self.told(settings, cid)
            content = RecordDict({"arrays": arrays, "fixed": self.fixed, "config": told})
            by_cid[cid].content = content
        return [by_cid[cid] for cid in asked]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord, MetricRecord]:
        """Average the buffers; give the strategy one array and one metric record per client."""
        lists: dict[str, list[float]] = {}
        stripped: list[Message] = []
        sums: Tensors = {}
        for reply in replies:
            own = metric_lists(reply)
            for name, values in own.items():
                lists.setdefault(name, []).extend(values)
            if "arrays" in reply.content:
                stripped.append(self._strip(reply, sums, own["weight"][0]))
        self.note_cohort(lists)
        weight = self.used_weight(lists)
        buffers = self.average_buffers(sums, weight)
        stepped = self._step(server_round, stripped) if weight else {}
        broadcast = {**self.state.broadcast, **stepped, **buffers}
        self.set_state(replace(self.state, round=server_round, broadcast=broadcast))
        return array_record(self.state.broadcast), metric_record(lists)

    def _step(self, server_round: int, replies: list[Message]) -> Tensors:
        """Let the strategy aggregate trainable parameters."""
        arrays, _ = self.stock.aggregate_train(server_round, replies)
        if arrays is None:
            name, updates = type(self.stock).__name__, len(replies)
            raise RunError(f"round {server_round}: {name} gave no model of {updates} updates")
        return {name: tensor.float() for name, tensor in tensors_of(arrays).items()}

    def _strip(self, reply: Message, sums: Tensors, weight: float) -> Message:
        """Add a reply's buffers to ``sums`` and return the reply with trainable parameters only."""
        tensors = tensors_of(reply.content.array_records["arrays"])
        for name in self._buffers:
            scaled = tensors[name] * weight
            sums[name] = sums[name] + scaled if name in sums else scaled
        arrays = array_record({name: tensors[name] for name in self._trained})
        examples = reply.content.metric_records["metrics"]["num-examples"]
        metrics = MetricRecord({"num-examples": examples})
        return with_content(reply, RecordDict({"arrays": arrays, "metrics": metrics}))

    def memo(self) -> Callable[[], None]:
        """Return a function that takes back what a round changes in here and in the strategy."""
        take_back_server = super().memo()
        kept = {
            name: copy.copy(value) if isinstance(value, dict | list) else value
            for name, value in vars(self.stock).items()
        }

        def take_back() -> None:
            take_back_server()
            vars(self.stock).clear()
            vars(self.stock).update(kept)

        return take_back

    def snapshot(self) -> tuple[dict[str, Tensors], dict[str, object]]:
        """Return the server state, and the strategy's array- and scalar-valued attributes."""
        groups: dict[str, Tensors] = {
            "broadcast": self.state.broadcast,
            "fixed": self.state.fixed,
        }
        values: dict[str, object] = {"round": self.state.round}
        for name, value in vars(self.stock).items():
            if isinstance(value, bool | int | float | str):
                values[f"stock/{name}"] = value
            elif arrays := _arrays(value):
                groups[f"stock/{name}"] = arrays
        return groups, values

    def restore(self, tensors: dict[str, Tensors], values: dict[str, object]) -> None:
        """Take back a snapshot."""
        round_, groups = int(str(values["round"])), (tensors["broadcast"], tensors["fixed"])
        self.set_state(ServerState(round_, groups[0], fixed=groups[1]))
        self.fixed = array_record(self.state.fixed)
        for name, value in values.items():
            if name.startswith("stock/"):
                setattr(self.stock, name.removeprefix("stock/"), value)
        for name, group in tensors.items():
            if name.startswith("stock/"):
                arrays = {entry: tensor.numpy() for entry, tensor in group.items()}
                setattr(self.stock, name.removeprefix("stock/"), _shape_like(arrays))


def _arrays(value: object) -> Tensors:
    """Return an attribute that holds arrays as tensors; empty for anything else."""
    if isinstance(value, ArrayRecord):
        return {f"record/{name}": tensor for name, tensor in tensors_of(value).items()}
    if isinstance(value, dict) and value:
        items, kind = value.items(), "dict"
    elif isinstance(value, list) and value:
        items, kind = {str(i): entry for i, entry in enumerate(value)}.items(), "list"
    else:
        return {}
    if not all(isinstance(entry, np.ndarray) for _, entry in items):
        return {}
    return {f"{kind}/{name}": torch.from_numpy(np.array(entry)) for name, entry in items}


def _shape_like(arrays: dict[str, np.ndarray[Any, Any]]) -> object:
    """Undo :func:`_arrays`."""
    kinds = {name.split("/", 1)[0] for name in arrays}
    plain = {name.split("/", 1)[1]: array for name, array in arrays.items()}
    if kinds == {"list"}:
        return list(plain.values())
    if kinds == {"record"}:
        return array_record({name: torch.from_numpy(array) for name, array in plain.items()})
    return plain
