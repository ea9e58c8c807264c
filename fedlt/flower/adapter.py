"""A fedlt strategy as a Flower strategy: one adapter, which holds the server state of one run.

Flower's own ``aggregate_train(round, replies)`` sees neither arrays nor state, so the adapter keeps
them. Cohorts are sampled by (seed, round), BatchNorm buffers are averaged here by the run's policy,
and clients whose update is not finite or too large are left out and remembered.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy as FlowerBase

from fedlt.errors import RunError
from fedlt.federation.faults import Faults, NormRule, RoundFaults
from fedlt.flower.records import Records, array_record, metric_record, record_dict
from fedlt.flower.replies import (
    finite,
    metric_lists,
    sum_replies,
    unpack_sums,
    unpack_update,
)
from fedlt.models import Model
from fedlt.models.batchnorm import batchnorm_statistics, from_moments
from fedlt.rng import numpy_generator
from fedlt.strategy import ServerState, Strategy, Tensors, Total, Update

if TYPE_CHECKING:
    from fedlt.federation.federation import Federation


class NoUsableUpdateError(RunError):
    """No client of a cohort sent a finite update; the run stops with its checkpoint intact."""


class ServerHalf(FlowerBase):
    """What the round loop drives: a Flower strategy whose state can be saved and scored."""

    reduces: bool  # replies may arrive as sums over parts of the cohort

    def __init__(self, federation: Federation, model: Model, state: ServerState) -> None:
        self.federation, self.model = federation, model
        self._layout = model.layout()
        self.set_state(state)
        self.fixed = array_record(state.fixed)  # one object: engines send it once
        self.heard = np.zeros(federation.num_clients, dtype=np.bool_)  # answered so far
        self.trained = self.heard.copy()  # of those, with an update that was used
        self.faults = Faults.of(federation)  # None where nothing is to go wrong
        detect = federation.config.faults.detect
        self.rule = NormRule(detect.max_norm, detect.max_ratio) if detect.is_active else None
        self.plan = RoundFaults(())  # of the last round
        self.cohort: list[int] = []  # those of the last round that answered
        self.finite: list[int] = []  # of those, the clients in the sum
        self.huge: list[int] = []  # of those, the clients that the rule leaves out
        self.nonfinite: list[int] = []  # of those, the clients whose update is not finite
        self._moments = batchnorm_statistics(model, "shared")
        integers = set(model.integer_names())
        self._buffers = [n for n in model.buffer_names("shared") if n not in integers]

    @property
    def excluded(self) -> list[int]:
        """The clients of the last round whose update was not used."""
        kept = set(self.finite)
        return [cid for cid in self.cohort if cid not in kept]

    def sample(self, round_: int, node_ids: Sequence[int]) -> list[int]:
        """Return the cohort of a round: sorted, a function of (seed, round) and the nodes.

        Where everybody's images are one task, the first node does it.
        """
        if self.federation.strategy.pools:
            return list(node_ids[:1])
        if self.faults is not None:
            node_ids = self.faults.joined(round_, node_ids)
        size = self.federation.config.clients_per_round or len(node_ids)
        generator = numpy_generator(self.federation.seed, "cohort", round_)
        chosen = generator.choice(len(node_ids), size=min(size, len(node_ids)), replace=False)
        return [node_ids[position] for position in sorted(chosen.tolist())]

    def round_config(self, round_: int, cohort: list[int]) -> ConfigRecord:
        """Return the settings of one round that travel with every message."""
        config = ConfigRecord({"server-round": round_})
        counts = self.prior_counts(cohort)
        if counts is not None:
            config["global-counts"] = counts.tolist()
        if self.rule is not None:
            config["max-norm"] = self.rule.bound
        return config

    def ask(self, round_: int, cohort: list[int]) -> list[int]:
        """Draw what goes wrong in a round and return the clients of its cohort that will answer."""
        self.plan = RoundFaults(tuple(cohort))
        if self.faults is not None:
            self.plan = self.faults.of_round(round_, cohort, stored=self.trained)
        return list(self.plan.asked)

    def told(self, settings: ConfigRecord, cid: int) -> ConfigRecord:
        """Return one client's settings: the round's, and what is to go wrong there."""
        own = self.plan.settings(cid)
        return ConfigRecord({**settings, **own}) if own else settings

    def prior_counts(self, cohort: list[int]) -> npt.NDArray[np.int64] | None:
        """Return the class counts (C,) that the server may know, by ``prior.source``.

        ``secure_sum`` is the sum over the clients heard so far, this cohort among them, each once.
        """
        source, data = self.federation.config.prior.source, self.federation.data
        if source == "own":
            return None
        if source == "oracle":
            return data.class_counts
        heard = self.heard.copy()
        heard[cohort] = True
        total: npt.NDArray[np.int64] = data.client_counts[heard].sum(axis=0)
        return total

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """Return one message per client that will answer; they share their array records."""
        nodes = grid.get_node_ids()  # our engines' are a range, which need not be sorted
        ordered = nodes if isinstance(nodes, range) else sorted(nodes)
        asked = self.ask(server_round, self.sample(server_round, ordered))
        content: Records = {"arrays": arrays, "fixed": self.fixed}
        settings = self.round_config(server_round, asked)
        return [
            Message(
                record_dict({**content, "config": self.told(settings, node)}),
                message_type=MessageType.TRAIN,
                dst_node_id=node,
                group_id=str(server_round),
            )
            for node in asked
        ]

    def note_cohort(self, lists: dict[str, list[float]]) -> None:
        """Remember who answered, from the replies' metric lists."""
        self.cohort = [int(cid) for cid in lists["cid"]]
        flags = list(zip(self.cohort, lists["finite"], strict=True))
        good = [cid for cid, ok in flags if ok]
        if not good and not set(self.cohort) <= set(self.plan.corrupt):
            raise NoUsableUpdateError(
                f"round {self.state.round + 1}: no usable update: "
                f"the updates of clients {self.cohort} are not finite"
            )
        self.nonfinite = [cid for cid, ok in flags if not ok]
        self.finite = self._leave_out_huge(lists, good)
        pools = self.federation.strategy.pools and bool(self.cohort)
        self.heard[slice(None) if pools else self.cohort] = True
        self.trained[slice(None) if pools and self.finite else self.finite] = True

    def _leave_out_huge(self, lists: dict[str, list[float]], good: list[int]) -> list[int]:
        """Return the clients whose update is used, by the rule if there is one."""
        self.huge = []
        if self.rule is None:
            return good
        norms = dict(zip(self.cohort, lists["norm"], strict=True))
        self.huge, usable = self.rule.judge({cid: norms[cid] for cid in good})
        huge = set(self.huge)
        return [cid for cid in good if cid not in huge] if usable else []

    def used_weight(self, lists: dict[str, list[float]]) -> float:
        """Return the sum of the weights of the clients whose update is used."""
        used = set(self.finite)
        pairs = zip(self.cohort, lists["weight"], strict=True)
        return sum(weight for cid, weight in pairs if cid in used)

    def pass_round(self, round_: int) -> MetricRecord:
        """Let a round pass in which nobody answers: no step is taken."""
        self.cohort, self.finite, self.huge, self.nonfinite = [], [], [], []
        self.set_state(replace(self.state, round=round_))
        return metric_record({"cid": []})

    def set_state(self, state: ServerState) -> None:
        """Take a state; the model's part of its broadcast is copied into one block of memory."""
        layout, broadcast = self._layout, state.broadcast
        packed = layout.fill(broadcast) if layout.fits(broadcast) else {}
        self.state = replace(state, broadcast={**broadcast, **packed})

    def memo(self) -> Callable[[], None]:
        """Return a function that takes back what a round changes in here from now on."""
        state, heard, trained = self.state, self.heard.copy(), self.trained.copy()
        medians = [] if self.rule is None else self.rule.medians

        def take_back() -> None:
            self.state, self.heard, self.trained = state, heard, trained
            if self.rule is not None:
                self.rule.medians = medians

        return take_back

    def average_buffers(self, sums: Tensors, weight: float) -> Tensors:
        """Take the BatchNorm buffers out of ``sums`` and return their mean by the run's policy.

        A cohort without images has weight 0 and leaves the buffers as they are.
        """
        if weight == 0:
            return {}
        means = {name: sums.pop(name) / weight for name in self._buffers if name in sums}
        pooled = self.federation.config.batchnorm == "pooled"
        sent = self.state.broadcast
        return from_moments(means, self._moments, about=sent) if pooled else means

    @abstractmethod
    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord, MetricRecord]:
        """Take the round's step and return the next broadcast and the clients' metric lists.

        Raises:
            NoUsableUpdateError: If no client's update is finite; the state is as before.
        """

    @abstractmethod
    def snapshot(self) -> tuple[dict[str, Tensors], dict[str, object]]:
        """Return what a checkpoint must hold: groups of tensors, and JSON values."""

    @abstractmethod
    def restore(self, tensors: dict[str, Tensors], values: dict[str, object]) -> None:
        """Take back a snapshot."""

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """Return nothing: evaluation is fedlt's own."""
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> None:
        """Return nothing: evaluation is fedlt's own."""

    def summary(self) -> None:
        """Log nothing: the run directory holds the configuration."""


class FlowerStrategy(ServerHalf):
    """The adapter: ``FlowerStrategy(strategy, model)`` with the state of one run."""

    def __init__(self, strategy: Strategy, model: Model, federation: Federation) -> None:
        super().__init__(federation, model, strategy.init(model))
        self.strategy = strategy
        self.reduces = strategy.reduces

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord, MetricRecord]:
        """Add the replies in order and take the strategy's step."""
        total, buffers, lists = self._reduce(replies) if self.reduces else self._collect(replies)
        empty = total.weight == 0  # clients without images: nothing was trained
        state = self.state if empty else self.strategy.aggregate(self.state, total)
        self._check(state)
        broadcast = {**state.broadcast, **buffers}
        self.set_state(replace(state, round=server_round, broadcast=broadcast))
        return array_record(self.state.broadcast), metric_record(lists)

    def _check(self, state: ServerState) -> None:
        """Raise unless a strategy's new state is one that clients can load."""
        name = type(self.strategy).__name__
        if not isinstance(state, ServerState):
            raise RunError(
                f"{name}.aggregate must return a ServerState, not a {type(state).__name__}"
            )
        for wanted, tensor in self.state.broadcast.items():
            given = state.broadcast.get(wanted)
            if given is None or given.shape != tensor.shape:
                found = None if given is None else tuple(given.shape)
                raise RunError(
                    f"{name}.aggregate: broadcast {wanted!r} has shape {found}, "
                    f"expected {tuple(tensor.shape)}"
                )
        if not finite(state.broadcast.values()):
            raise RunError(
                f"round {self.state.round + 1}: {name}.aggregate gave values that are not finite"
            )

    def _reduce(self, replies: Iterable[Message]) -> tuple[Total, Tensors, dict[str, list[float]]]:
        reply = sum_replies(replies)
        lists = metric_lists(reply)
        self.note_cohort(lists)
        weight = self.used_weight(lists)
        sums, plain = unpack_sums(reply) if self.finite else ({}, {})
        buffers = self.average_buffers(sums, weight)
        federation = self.federation
        total = Total(
            sums,
            weight,
            tuple(self.finite),
            federation.num_clients,
            plain=plain,
            seed=federation.seed,
        )
        return total, buffers, lists

    def _collect(self, replies: Iterable[Message]) -> tuple[Total, Tensors, dict[str, list[float]]]:
        lists: dict[str, list[float]] = {}
        updates: list[Update] = []
        sums: Tensors = {}
        for update, own in self._updates(replies, lists):
            updates.append(update)
            for name in self._buffers:
                if name in own:
                    scaled = own[name] * update.weight
                    sums[name] = sums[name] + scaled if name in sums else scaled
        self.note_cohort(lists)
        weight = self.used_weight(lists)  # nothing is used of a sum that holds a huge update
        buffers = self.average_buffers(sums, weight)
        federation = self.federation
        total = Total(
            {},
            weight,
            tuple(self.finite),
            federation.num_clients,
            updates=tuple(updates),
            seed=federation.seed,
        )
        return total, buffers, lists

    def _updates(
        self, replies: Iterable[Message], lists: dict[str, list[float]]
    ) -> Iterator[tuple[Update, Tensors]]:
        """Yield finite updates without buffers, and their tensors with them; join the metrics."""
        for reply in replies:
            for name, values in metric_lists(reply).items():
                lists.setdefault(name, []).extend(values)
            if "arrays" in reply.content:
                update = unpack_update(reply)
                rest = {n: t for n, t in update.sums.items() if n not in set(self._buffers)}
                yield replace(update, sums=rest), update.sums

    def snapshot(self) -> tuple[dict[str, Tensors], dict[str, object]]:
        """Return the server state."""
        state = self.state
        groups = {"broadcast": state.broadcast, "private": state.private, "fixed": state.fixed}
        return groups, {"round": state.round}

    def restore(self, tensors: dict[str, Tensors], values: dict[str, object]) -> None:
        """Take back the server state."""
        self.set_state(ServerState(int(str(values["round"])), **tensors))
        self.fixed = array_record(self.state.fixed)
