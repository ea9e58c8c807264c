"""The server half of a run: cohorts are sampled, updates summed, the strategy's step taken.

The server keeps its state between rounds; a checkpoint holds the same. The outcome of a
round is a value: `aggregate` returns a `RoundOutcome` and changes nothing, `adopt` puts the outcome
in force. Cohorts are sampled by (seed, round), BatchNorm buffers are averaged here by the run's
policy, and clients whose update is not finite or too large are left out.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType
from flwr.serverapp import Grid

from fedlt.errors import RunError
from fedlt.federation.cohorts import drawn_by_size, drawn_one_by_one, drawn_uniformly
from fedlt.federation.faults import Faults, NormRule, RoundFaults
from fedlt.federation.ledger import RoundOutcome
from fedlt.federation.packing import ServerSnapshot
from fedlt.flower.records import Records, array_record, record_dict, tensors_of
from fedlt.flower.replies import finite, metric_lists, sum_replies, unpack_sums, unpack_update
from fedlt.machine.memory import Pieces, find_block
from fedlt.models import Model
from fedlt.models.batchnorm import batchnorm_statistics, from_moments
from fedlt.privacy.release import release
from fedlt.strategy import ServerState, Tensors, Total, Update

if TYPE_CHECKING:
    from fedlt.federation import ServerView
    from fedlt.privacy.plan import PrivacyPlan


class NoUsableUpdateError(RunError):
    """No client of a cohort sent a finite update; the run stops with its checkpoint intact."""


@dataclass(frozen=True)
class Answers:
    """The answers of a cohort, added in cohort order."""

    lists: Mapping[str, list[float]]  # metrics by name: one value a client that answered
    sums: Tensors = field(default_factory=dict)  # weighted; with `replies` the buffers alone
    plain: Tensors = field(default_factory=dict)  # summed without the weight
    replies: Sequence[Message] = ()  # of single clients, for a strategy that reads them


_NOBODY = Answers({"cid": [], "finite": [], "weight": [], "norm": []})


class ServerHalf:
    """A strategy with the state of one run: what the round loop drives."""

    def __init__(
        self, view: ServerView, model: Model, state: ServerState, faults: Faults | None
    ) -> None:
        self.view, self.model = view, model
        self.reduces = view.strategy.traits.reduces  # replies may be sums over chunks
        self._layout = model.layout()
        self.set_state(state)
        self.heard = np.zeros(view.num_clients, dtype=np.bool_)  # answered so far
        self.trained = self.heard.copy()  # of those, with an update that was used
        self.faults = faults  # None where nothing is to go wrong
        detect = view.config.faults.detect
        self.rule = NormRule(detect.max_norm, detect.max_ratio) if detect.is_active else None
        self._moments = batchnorm_statistics(model, "shared")
        integers = set(model.integer_names())
        self._buffers = [n for n in model.buffer_names("shared") if n not in integers]
        self.privacy = view.privacy
        self.norm = None if view.privacy is None else view.privacy.first_norm  # of the next round
        # The nodes of a deployment know the file's seed, which must tell neither noise nor cohorts.
        is_real = view.config.deployment.data == "nodes" and view.privacy is not None
        self._noise_seed = secrets.randbits(62) if is_real else view.seed

    def sample(self, round_: int, node_ids: Sequence[int]) -> list[int]:
        """Return the cohort of a round: sorted, a function of (seed, round) and the nodes.

        Where all images are one task, the first node does the task. With ``sampling: by_size`` a
        node that is drawn several times is named as often.
        """
        if self.view.strategy.traits.pools:
            return list(node_ids[:1])
        if self.faults is not None:
            node_ids = self.faults.joined(round_, node_ids)
        size, sizes = self.view.cohort_size, self.view.sizes
        if sizes is not None and self.view.config.clients_per_round is not None:
            return drawn_by_size(self.view.seed, round_, node_ids, sizes, size)
        rules = self.view.config.privacy
        if rules is not None and (rules.mechanism, rules.sampling) == ("central", "poisson"):
            rate = size / self.view.num_clients
            return drawn_one_by_one(self._noise_seed, round_, node_ids, rate)
        is_central = rules is not None and rules.mechanism == "central"
        seed = self._noise_seed if is_central else self.view.seed
        return drawn_uniformly(seed, round_, node_ids, size)

    def round_config(self, round_: int, cohort: list[int]) -> ConfigRecord:
        """Return the settings of one round that travel with every message."""
        config = ConfigRecord({"server-round": round_})
        counts = self.prior_counts(cohort)
        if counts is not None:
            config["global-counts"] = counts.tolist()
        if self.rule is not None:
            config["max-norm"] = self.rule.bound
        if self.privacy is not None:
            config["privacy"] = self.privacy.rules.mechanism
            config["privacy-noise"] = self.privacy.noise
            if self.norm is not None:
                config["privacy-norm"] = self.norm
        return config

    def prior_counts(self, cohort: list[int]) -> npt.NDArray[np.int64] | None:
        """Return the class counts (C,) that the server may know, by ``prior.source``.

        ``secure_sum`` is the sum over the clients heard so far, this cohort among them, each once.
        """
        heard = self.heard.copy()
        heard[cohort] = True
        return self.view.ask_counts(heard)

    def cohort(self, round_: int, grid: Grid) -> list[int]:
        """Return the clients that are sampled for a round, sorted."""
        nodes = grid.get_node_ids()  # our engines' are a range, which need not be sorted
        return self.sample(round_, nodes if isinstance(nodes, range) else sorted(nodes))

    def plan(self, round_: int, cohort: Sequence[int]) -> RoundFaults:
        """Return the clients of a cohort that will answer, and the faults of the others."""
        draws = Counter(cohort)
        plan = RoundFaults(tuple(draws))
        if self.faults is not None:
            plan = self.faults.of_round(round_, [*draws], stored=self.trained)
        return plan if self.view.sizes is None else replace(plan, draws=draws)

    def tasks(self, round_: int, plan: RoundFaults) -> list[Message]:
        """Return one message per client that will answer; they share their array records."""
        arrays = array_record(self.state.broadcast)
        content: Records = {"arrays": arrays, "fixed": self.fixed}
        settings = self.round_config(round_, list(plan.asked))
        return [
            Message(
                record_dict({**content, "config": _told(settings, plan, node)}),
                message_type=MessageType.TRAIN,
                dst_node_id=node,
                group_id=str(round_),
            )
            for node in plan.asked
        ]

    def aggregate(self, round_: int, plan: RoundFaults, replies: Sequence[Message]) -> RoundOutcome:
        """Return the outcome of a round; nothing changes before :meth:`adopt`.

        Args:
            round_: The round.
            plan: The clients that were asked; without any, the round passes without a step.
            replies: Of single clients, or (`reduces`) sums over parts of the cohort.

        Raises:
            NoUsableUpdateError: If no client's update is finite.
        """
        answers = self._add(replies) if replies else _NOBODY
        outcome = self._judge(plan, answers.lists)
        if self.privacy is not None:
            outcome, answers = self._released(self.privacy, round_, outcome, answers)
        buffers = self._average_buffers(answers.sums, outcome.weight)
        if outcome.weight:  # else nothing was trained, or nothing of it can be used
            outcome = self.take_step(outcome, answers)
        broadcast = {**outcome.state.broadcast, **buffers}
        state = replace(outcome.state, round=round_, broadcast=broadcast)
        return replace(outcome, state=self._in_one_block(state))

    def _released(
        self, plan: PrivacyPlan, round_: int, outcome: RoundOutcome, answers: Answers
    ) -> tuple[RoundOutcome, Answers]:
        """Return outcome and answers with the noisy sum in place of the clients' own."""
        made = release(
            plan,
            self.state.broadcast,
            answers.sums,
            answers.lists.get("norm", []),
            names=self.model.parameter_names("shared"),
            norm=self.norm,
            answered=len(outcome.used),
            round_=round_,
            seed=self._noise_seed,
        )
        return replace(outcome, release=made), Answers(answers.lists, made.sums)

    def adopt(self, outcome: RoundOutcome) -> None:
        """Put a round's outcome in force."""
        if outcome.release is not None:
            self.norm = outcome.release.next_norm
        pools = self.view.strategy.traits.pools
        for flags, cids in ((self.heard, outcome.answered), (self.trained, outcome.used)):
            flags[slice(None) if pools and cids else list(cids)] = True
        self.state, self.rule = outcome.state, outcome.rule

    def _add(self, replies: Sequence[Message]) -> Answers:
        """Add replies in order. Single updates are kept beside their metrics and buffers."""
        if self.reduces or self.privacy is not None:
            is_sum = len(replies) == 1 and "sums" in replies[0].content
            reply = replies[0] if is_sum else sum_replies(replies)
            sums, plain = unpack_sums(reply) if "sums" in reply.content else ({}, {})
            return Answers(metric_lists(reply), sums, plain)
        lists: dict[str, list[float]] = {}
        buffers: Tensors = {}
        kept = [reply for reply in replies if "arrays" in reply.content]
        for reply in replies:
            for name, values in metric_lists(reply).items():
                lists.setdefault(name, []).extend(values)
        for reply in kept:
            own = tensors_of(cast(ArrayRecord, reply.content["arrays"]))
            weight = metric_lists(reply)["weight"][0]
            for name in self._buffers:
                if name in own:
                    scaled = own[name] * weight
                    buffers[name] = buffers[name] + scaled if name in buffers else scaled
        return Answers(lists, buffers, replies=kept)

    def _judge(self, plan: RoundFaults, lists: Mapping[str, list[float]]) -> RoundOutcome:
        """Return the outcome of a round before the step: the clients whose updates are used."""
        answered = [int(cid) for cid in lists["cid"]]
        flags = dict(zip(answered, lists["finite"], strict=True))
        good = [cid for cid in answered if flags[cid]]
        if not good and not set(answered) <= set(plan.corrupt):
            raise NoUsableUpdateError(
                f"round {self.state.round + 1}: no usable update: "
                f"the updates of clients {answered} are not finite"
            )
        outdated = dict(zip(answered, lists.get("outdated", [0.0] * len(answered)), strict=True))
        rule, usable = self.rule, True
        huge: list[int] = []
        if rule is not None:
            rule = replace(rule)  # `judge` adds the round's median
            norms = dict(zip(answered, lists["norm"], strict=True))
            huge, usable = rule.judge({cid: norms[cid] for cid in good})
        left_out = set(huge)
        return RoundOutcome(
            plan,
            lists,
            answered=tuple(answered),
            used=tuple(cid for cid in good if usable and cid not in left_out),
            huge=tuple(huge),
            nonfinite=tuple(cid for cid in answered if not flags[cid]),
            silent=tuple(cid for cid in plan.asked if cid not in flags),
            outdated=tuple(cid for cid in answered if outdated.get(cid)),
            state=self.state,
            rule=rule,
        )

    def take_step(self, outcome: RoundOutcome, answers: Answers) -> RoundOutcome:
        """Return an outcome with the state after the strategy's step, without buffers.

        Args:
            outcome: With the state before the step, and the clients in the sum.
            answers: Their sums without buffers, or their replies.
        """
        total = Total(
            answers.sums,
            outcome.weight,
            outcome.used,
            self.view.num_clients,
            plain=answers.plain,
            updates=tuple(self._update(reply) for reply in answers.replies),
            seed=self.view.seed,
        )
        state = self.view.strategy.aggregate(self.state, total)
        self._check(state)
        return replace(outcome, state=state)

    def _update(self, reply: Message) -> Update:
        update = unpack_update(reply)
        return replace(
            update, sums={n: t for n, t in update.sums.items() if n not in self._buffers}
        )

    def set_state(self, state: ServerState) -> None:
        """Load a state, for example of a checkpoint."""
        self.state = self._in_one_block(state)
        self.fixed = array_record(state.fixed)  # one object: engines send it once

    def _in_one_block(self, state: ServerState) -> ServerState:
        """Return a state whose broadcast model tensors lie in one block of memory."""
        layout, broadcast = self._layout, state.broadcast
        found = find_block(broadcast)
        if found is not None and found[0] == layout:
            return state
        packed = layout.fill(broadcast) if layout.fits(broadcast) else {}
        return replace(state, broadcast={**broadcast, **packed})

    def _average_buffers(self, sums: Tensors, weight: float) -> Tensors:
        """Take the BatchNorm buffers out of ``sums`` and return their mean by the run's policy.

        A cohort without images has weight 0 and leaves the buffers as they are.
        """
        if weight == 0:
            return {}
        means = {name: sums.pop(name) / weight for name in self._buffers if name in sums}
        pooled = self.view.config.batchnorm == "pooled"
        sent = self.state.broadcast
        return from_moments(means, self._moments, about=sent) if pooled else means

    def _check(self, state: ServerState) -> None:
        """Raise unless clients can load a strategy's new state."""
        name = type(self.view.strategy).__name__
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
        if not finite(Pieces(state.broadcast).pieces):
            raise RunError(
                f"round {self.state.round + 1}: {name}.aggregate gave values that are not finite"
            )

    def snapshot(self) -> ServerSnapshot:
        """Return the server's part of a checkpoint."""
        state = self.state
        groups = {"broadcast": state.broadcast, "private": state.private, "fixed": state.fixed}
        norms = [] if self.rule is None else self.rule.medians
        values: dict[str, object] = {"round": state.round}
        if self.norm is not None:
            values["privacy.norm"] = self.norm
        return ServerSnapshot(groups, values, self.heard, self.trained, norms)

    def restore(self, saved: ServerSnapshot) -> None:
        """Take back a snapshot."""
        groups = {name: saved.tensors.get(name, {}) for name in ("broadcast", "private", "fixed")}
        self.set_state(ServerState(int(str(saved.values["round"])), **groups))
        self.heard, self.trained = saved.heard, saved.trained
        if "privacy.norm" in saved.values:
            self.norm = float(str(saved.values["privacy.norm"]))
        if self.rule is not None:
            self.rule = replace(self.rule, medians=saved.norms)


def _told(settings: ConfigRecord, plan: RoundFaults, cid: int) -> ConfigRecord:
    """Return one client's settings: the round's settings, and the client's faults."""
    own = plan.settings(cid)
    return ConfigRecord({**settings, **own}) if own else settings
