"""Run a stock Flower strategy (FedAdam, Krum, ...) named in a fedlt file.

The client half is FedAvg's. Only trainable shared parameters pass through it: an adaptive server
step on BatchNorm's running variance turns it negative. The buffers are averaged here.
"""

from __future__ import annotations

import copy
import inspect
import logging
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import (
    DifferentialPrivacyClientSideAdaptiveClipping,
    DifferentialPrivacyClientSideFixedClipping,
    FedAvg,
    FedXgbBagging,
    FedXgbCyclic,
)
from flwr.serverapp.strategy import Strategy as FlowerBase

from fedlt.errors import FedltError, RunError, nearest
from fedlt.federation.ledger import RoundOutcome
from fedlt.federation.packing import ServerSnapshot
from fedlt.flower.adapter import Answers, ServerHalf
from fedlt.flower.client_app import TOLD, told
from fedlt.flower.records import array_record, tensors_of, with_content
from fedlt.models import Model
from fedlt.rng import key, seed_torch, set_torch_state
from fedlt.rng import torch_state as get_torch_state
from fedlt.strategy import Strategy, StrategyTraits, Tensors

if TYPE_CHECKING:
    from torch import Tensor

    from fedlt.client import Batch, Client
    from fedlt.federation import ServerView
    from fedlt.federation.faults import Faults

_OF_MEANS = ("FedAvg", "FedAvgM", "FedAdagrad", "FedAdam", "FedYogi", "FedProx")
SAMPLING = ("fraction_train", "fraction_evaluate", "min_train_nodes", "min_evaluate_nodes")


@dataclass(frozen=True)
class StockStrategy(Strategy):
    """A Flower strategy class and its options; the client half is FedAvg's."""

    traits = StrategyTraits(reduces=False)
    factory: Callable[..., FlowerBase] = FedAvg
    options: dict[str, Any] = field(default_factory=dict)

    def needs_beyond_mean(self) -> str:
        """Nothing but the model, if the strategy steps with the clients' mean; else the refusal."""
        if getattr(self.factory, "__name__", "") in _OF_MEANS:
            return ""
        return "the updates of single clients"

    def objective(self, client: Client, batch: Batch) -> Tensor:
        """Return the loss, with the proximal term where the strategy tells its weight mu.

        The term is mu / 2 |w - w_global|^2: Li et al., MLSys 2020,
        https://arxiv.org/abs/1812.06127, equation 2.
        """
        loss = super().objective(client, batch)
        mu = client.tensors.get(f"{TOLD}proximal-mu")
        return loss if mu is None else loss + 0.5 * mu * client.squared_distance(client.broadcast)

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
        if inspect.isclass(self.factory) and issubclass(self.factory, FedXgbBagging | FedXgbCyclic):
            raise FedltError(
                f"strategy: {self.factory.__name__} puts trees together; clients of fedlt train "
                "networks"
            )
        chosen = {option: value for option, value in sampling.items() if option in known}
        name = getattr(self.factory, "__name__", repr(self.factory))
        try:
            made = cast(FlowerBase, self.factory(**chosen, **self.options))
        except (TypeError, ValueError) as error:
            raise FedltError(f"strategy: {name} refuses: {error}") from error
        return made


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
        _check_mods(self.stock, view.config.flower.mods)
        self._told: dict[str, float] = {}  # what the strategy tells the clients of a round
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
        configs = [c for m in messages for c in m.content.config_records.values()]
        self._told = told(configs[0]) if configs else {}
        if self.privacy is not None:  # epsilon counts the draws of fedlt's own cohorts
            return super().cohort(round_, grid)
        return sorted({message.metadata.dst_node_id for message in messages})

    def round_config(self, round_: int, cohort: list[int]) -> ConfigRecord:
        """Return the settings of one round, with what the strategy tells its clients."""
        return ConfigRecord({**self._told, **super().round_config(round_, cohort)})

    def take_step(self, outcome: RoundOutcome, answers: Answers) -> RoundOutcome:
        """Let a copy of the strategy aggregate trainable parameters."""
        stock, round_ = copy.copy(self.stock), self.state.round + 1
        held = {n: v for n, v in vars(stock).items() if isinstance(v, dict | list)}
        vars(stock).update({name: copy.copy(value) for name, value in held.items()})
        replies = [self._strip(reply) for reply in answers.replies]
        if outcome.release is not None:
            replies = [self._mean_reply(answers.sums, outcome.weight)]
        with _seeded(key(self.view.seed, "stock", round_)):
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

    def _mean_reply(self, sums: Tensors, weight: float) -> Message:
        """Return the noisy mean of a private run as the reply of one client."""
        arrays = array_record({name: sums[name] / weight for name in self._trained})
        metrics = MetricRecord({"num-examples": 1.0})
        return Message(RecordDict({"arrays": arrays, "metrics": metrics}), 1, MessageType.TRAIN)

    def _strip(self, reply: Message) -> Message:
        """Return a client's reply with trainable parameters and its number of examples only."""
        tensors = tensors_of(reply.content.array_records["arrays"])
        arrays = array_record({name: tensors[name] for name in self._trained})
        given = reply.content.metric_records["metrics"]
        metrics = MetricRecord({"num-examples": given["num-examples"]})
        loss, examples = (cast("list[float]", given.get(n, [0.0])) for n in ("loss", "examples"))
        metrics[getattr(self.stock, "train_loss_key", "train_loss")] = loss[0] / (examples[0] or 1)
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


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the global generators for the block: a strategy of Flower's may add noise."""
    state, numpy_state, torch_state = random.getstate(), np.random.get_state(), get_torch_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    seed_torch(seed, "stock")
    try:
        yield
    finally:
        random.setstate(state)
        np.random.set_state(numpy_state)
        set_torch_state(torch_state)


def _check_mods(stock: FlowerBase, mods: Sequence[str]) -> None:
    """Refuse wrappers that clip at the clients by a mod, if the mod is not named or cannot work."""
    if isinstance(stock, DifferentialPrivacyClientSideAdaptiveClipping):
        raise FedltError(
            "strategy: DifferentialPrivacyClientSideAdaptiveClipping needs a bit of each client "
            "that fedlt does not pass on; clip at the server, or with a fixed norm"
        )
    is_fixed = isinstance(stock, DifferentialPrivacyClientSideFixedClipping)
    if is_fixed and not any(name.endswith(":fixedclipping_mod") for name in mods):
        raise FedltError(
            "strategy: DifferentialPrivacyClientSideFixedClipping clips at the clients, by a mod: "
            "flower.mods=[flwr.clientapp.mod:fixedclipping_mod]"
        )


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
