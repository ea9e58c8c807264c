"""Run a stock Flower strategy (FedAdam, Krum, ...) named in a fedlt file.

The client half is FedAvg's. Only trainable shared parameters pass through it: an adaptive server
step on BatchNorm's running variance turns it negative. The buffers are averaged here.
"""

from __future__ import annotations

import copy
import inspect
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from flwr.serverapp.strategy import Strategy as FlowerBase

from fedlt.errors import FedltError, RunError, nearest
from fedlt.federation.ledger import RoundOutcome
from fedlt.federation.packing import ServerSnapshot
from fedlt.flower.adapter import Answers, ServerHalf
from fedlt.flower.records import array_record, tensors_of, with_content
from fedlt.models import Model
from fedlt.rng import key
from fedlt.strategy import Strategy, StrategyTraits, Tensors

if TYPE_CHECKING:
    from fedlt.federation import ServerView
    from fedlt.federation.faults import Faults

SAMPLING = ("fraction_train", "fraction_evaluate", "min_train_nodes", "min_evaluate_nodes")


@dataclass(frozen=True)
class StockStrategy(Strategy):
    """A Flower strategy class and its options; the client half is FedAvg's."""

    traits = StrategyTraits(reduces=False)
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
    """A stock strategy with the state of one run."""

    def __init__(
        self, strategy: StockStrategy, model: Model, view: ServerView, faults: Faults | None
    ) -> None:
        super().__init__(view, model, strategy.init(model), faults)
        logging.getLogger("flwr").setLevel(logging.ERROR)
        if view.config.faults.late.share:
            raise FedltError(
                f"faults.late: {strategy.factory.__name__} samples its clients itself, from all of "
                "them; use a strategy of fedlt's"
            )
        self.stock = strategy.make(view.num_clients, view.cohort_size)
        self._trained = model.parameter_names("shared")

    def cohort(self, round_: int, grid: Grid) -> list[int]:
        """Let the strategy choose its clients."""
        state = random.getstate()
        random.seed(key(self.view.seed, "cohort", round_))
        try:
            trained = array_record({name: self.state.broadcast[name] for name in self._trained})
            messages = list(self.stock.configure_train(round_, trained, ConfigRecord(), grid))
        finally:
            random.setstate(state)
        return sorted({message.metadata.dst_node_id for message in messages})

    def take_step(self, outcome: RoundOutcome, answers: Answers) -> RoundOutcome:
        """Let a copy of the strategy aggregate trainable parameters."""
        stock, round_ = copy.copy(self.stock), self.state.round + 1
        held = {n: v for n, v in vars(stock).items() if isinstance(v, dict | list)}
        vars(stock).update({name: copy.copy(value) for name, value in held.items()})
        replies = [self._strip(reply) for reply in answers.replies]
        arrays, _ = stock.aggregate_train(round_, replies)
        if arrays is None:
            name, updates = type(stock).__name__, len(replies)
            raise RunError(f"round {round_}: {name} gave no model of {updates} updates")
        stepped = {name: tensor.float() for name, tensor in tensors_of(arrays).items()}
        state = replace(self.state, broadcast={**self.state.broadcast, **stepped})
        return replace(outcome, state=state, stock=stock)

    def adopt(self, outcome: RoundOutcome) -> None:
        """Put a round's outcome in force, the strategy's own state with it."""
        super().adopt(outcome)
        if outcome.stock is not None:
            self.stock = cast(FlowerBase, outcome.stock)

    def _strip(self, reply: Message) -> Message:
        """Return a client's reply with trainable parameters and its number of examples only."""
        tensors = tensors_of(reply.content.array_records["arrays"])
        arrays = array_record({name: tensors[name] for name in self._trained})
        examples = reply.content.metric_records["metrics"]["num-examples"]
        metrics = MetricRecord({"num-examples": examples})
        return with_content(reply, RecordDict({"arrays": arrays, "metrics": metrics}))

    def snapshot(self) -> ServerSnapshot:
        """Return the server's snapshot with the strategy's array- and scalar-valued attributes."""
        saved = super().snapshot()
        groups = {name: saved.tensors[name] for name in ("broadcast", "fixed")}
        values = dict(saved.values)
        for name, value in vars(self.stock).items():
            if isinstance(value, bool | int | float | str):
                values[f"stock/{name}"] = value
            elif arrays := _arrays(value):
                groups[f"stock/{name}"] = arrays
        return replace(saved, tensors=groups, values=values)

    def restore(self, saved: ServerSnapshot) -> None:
        """Take back a snapshot."""
        super().restore(saved)
        for name, value in saved.values.items():
            if name.startswith("stock/"):
                setattr(self.stock, name.removeprefix("stock/"), value)
        for name, group in saved.tensors.items():
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
