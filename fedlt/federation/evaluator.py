"""One evaluation round, driver's side: make requests, add up the answers, cut the metrics."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from torch import Tensor

from fedlt.data.arrays import BoolArray, IntArray
from fedlt.evaluation.cutting import generic_metrics, personal_metrics
from fedlt.evaluation.generic import Metric
from fedlt.evaluation.headline import ScoredSet
from fedlt.evaluation.local_test import LocalTest, evaluated_clients
from fedlt.evaluation.personal_metrics import coverage_metrics
from fedlt.evaluation.request import ClientRequest, ScoreRequest, Scores
from fedlt.evaluation.rounds import rounds_to_evaluate
from fedlt.evaluation.scores import ClientHits, GenericScores, PersonalScores
from fedlt.machine.lazy import Lazy
from fedlt.runs.evaluations import Evaluation

if TYPE_CHECKING:
    from fedlt.federation.observer import Observer
    from fedlt.models import Model

Ask = Callable[[Sequence[ScoreRequest]], Iterable[Scores]]  # an engine's run_scores
# What a generic model reads: shared parts alone, the mean of personal parts too, or it is missing.
GenericModel = Literal["shared", "average", "none"]
MAX_SHARDS = 8  # pieces of the test set that workers share
CHUNK_CLIENTS = 1000  # in one request, ...
CHUNK_BYTES = 128 * 2**20  # ... and of their personal states, unless one client has more


@dataclass(frozen=True)
class Standing:
    """The models after a round, to be scored; the driver holds them."""

    round: int
    broadcast: Mapping[str, Tensor]
    fixed: Mapping[str, Tensor]
    personal: Mapping[int, Mapping[str, Tensor]]  # of those that took part; read when needed
    participated: BoolArray  # (K,)
    steps: IntArray  # (K,) local steps of a round that made each personal part
    global_counts: IntArray | None  # (C,) that the server may know
    at_nodes: bool = False  # personal tensors are where the clients are, who score them


class Evaluator:
    """Scores the models of a run; the strategy gives the names of the heads."""

    def __init__(
        self, observer: Observer, model: Model, generic: GenericModel, rounds: int | None = None
    ) -> None:
        data, config = observer.data, observer.config
        self.observer, self.model, self.generic = observer, model, generic
        self._has_generic = generic != "none"
        self._rounds = config.rounds if rounds is None else rounds  # of the run
        self.test_counts = np.bincount(data.eval_labels, minlength=data.num_classes)
        self.scored_on = ScoredSet.of(data.eval_labels, data.num_classes, data.split)
        self.shots = observer.shots
        self.view: LocalTest = observer.local_test
        self._cids = evaluated_clients(
            observer.num_clients, config.evaluate.clients, seed=config.seed
        ).tolist()

    def is_due(self, round_: int) -> tuple[bool, bool]:
        """Return whether the generic view and the personal view are scored after a round."""
        config = self.observer.config
        generic, personal = rounds_to_evaluate(
            self._rounds,
            every=config.evaluate.every,
            personal_every=config.evaluate.personal_every,
            chosen=config.evaluate.selected_round,
        )
        return round_ in generic, round_ in personal

    def evaluate(
        self, standing: Standing, ask: Ask, *, personal: bool, keep_logits: bool
    ) -> tuple[dict[str, Metric], Evaluation]:
        """Score one standing.

        Args:
            standing: The models.
            ask: Sends requests to the workers and yields the answers in order.
            personal: Score the personal view too.
            keep_logits: Keep the generic logits.

        Returns:
            The metrics of the round, and the counts that they were cut from.
        """
        generic: GenericScores | None = None
        own: dict[int, ClientHits | None] = {}
        bases: dict[int, ClientHits | None] = {}
        steps = standing.steps.copy()
        for answer in ask(self._requests(standing, personal, keep_logits)):
            if answer.generic is not None:
                generic = answer.generic if generic is None else generic + answer.generic
            for cid, (mine, base) in answer.clients.items():
                own[cid] = _add(own.get(cid), mine)
                bases[cid] = _add(bases.get(cid), base)
            for cid, taken in answer.steps.items():
                steps[cid] += taken
        generic = generic or GenericScores.nothing(self.observer.data.num_classes)
        scores = self._stack(own, bases) if personal and own else None
        metrics = self._metrics(standing, generic, scores, steps)
        return metrics, self._archive(standing, generic, scores)

    def request(self, standing: Standing, cids: Sequence[int]) -> ScoreRequest:
        """Return a request to score the generic and some personal models on all test images."""
        counts = standing.global_counts
        own = standing.personal
        return ScoreRequest(
            round=standing.round,
            broadcast=standing.broadcast,
            fixed=standing.fixed,
            private_mean=self._private_mean(standing),
            start=0,
            stop=len(self.observer.data.eval_labels),
            generic=self._has_generic,
            keep_logits=False,
            global_counts=None if counts is None else tuple(counts.tolist()),
            clients=tuple(ClientRequest(cid, own.get(cid, {}), base=False) for cid in cids),
        )

    def _requests(
        self, standing: Standing, personal: bool, keep_logits: bool
    ) -> Sequence[ScoreRequest]:
        """Return requests: a piece of the test set with clients, or single clients where needed."""
        images, block = len(self.observer.data.eval_labels), self.observer.config.evaluate
        cids = self._cids if personal else []
        tried = bool(cids) and not standing.at_nodes  # a node does all of its part at once
        alone = tried and (self.observer.tunes or self._has_own_backbone(standing))
        whole = replace(self.request(standing, ()), keep_logits=keep_logits)
        size = block.batch_size * math.ceil(images / (block.batch_size * MAX_SHARDS))
        step = CHUNK_CLIENTS if alone or standing.at_nodes else _chunk_size(standing.personal)
        parts = [
            _ScoredPart(
                start,
                min(start + size, images),
                self._has_generic and first == 0 and images > 0,
                cids[first : first + step],
                base=self._has_generic,
            )
            for first in range(0, max(len(cids), 1), step)
            for start in (range(0, images, size) if images else (0,))
        ]
        lone = [cid for cid in cids if self.has_own_model(standing, cid)]
        make = partial(_request, standing, whole, frozenset(lone))
        if not alone:
            return Lazy(make, parts)
        bases = [replace(part, own=False) for part in parts] if self._has_generic else []
        models = [_ScoredPart(0, images, False, [cid], base=False) for cid in lone]
        return Lazy(make, [*bases, *models])

    def _has_own_backbone(self, standing: Standing) -> bool:
        """Return True if personal models have own backbones, judged by one client's state."""
        weights_of = self.observer.strategy.personal_weights
        for personal in standing.personal.values():
            return touches_backbone(weights_of(self.model, standing.broadcast, personal))
        return False

    def has_own_model(self, standing: Standing, cid: int) -> bool:
        """Return True if a client is scored with a personal model, not with the generic model.

        A client that never took part has one where everybody's is tuned for scoring, and its first
        state where there is no generic model.
        """
        return self.observer.tunes or not self._has_generic or bool(standing.participated[cid])

    def _private_mean(self, standing: Standing) -> dict[str, Tensor]:
        """Return the mean of personal parts that the generic model borrows; {}: it borrows none."""
        if self.generic != "average":
            return {}
        names = self.model.names("personal")
        return private_mean(standing.personal, names, self.observer.data.client_sizes)

    def _stack(
        self, own: Mapping[int, ClientHits | None], bases: Mapping[int, ClientHits | None]
    ) -> PersonalScores:
        cids = [cid for cid in self._cids if cid in own]  # a node may have failed to answer
        return PersonalScores.stack(
            cids,
            [own[cid] for cid in cids],
            [base for cid in cids if (base := bases[cid] or own[cid]) is not None],
            sampled=self.view.scheme == "sampled",
            own=self.view.scheme == "own",
        )

    def _metrics(
        self,
        standing: Standing,
        generic: GenericScores,
        scores: PersonalScores | None,
        steps: IntArray,
    ) -> dict[str, Metric]:
        counts = self.observer.data.client_counts
        metrics = generic_metrics(generic, self.shots)
        if scores is not None:
            personal = personal_metrics(
                scores,
                self.view,
                self.observer.personal_shots,
                participated=standing.participated,
                steps=steps,
                has_generic=self._has_generic,
            )
            metrics |= self.observer.as_known(personal, scores.cids)
        return metrics | coverage_metrics(standing.participated, counts, self.shots)

    def _archive(
        self, standing: Standing, generic: GenericScores, scores: PersonalScores | None
    ) -> Evaluation:
        by_class = self.view.client_counts.shape[1] == self.observer.data.num_classes
        return Evaluation(
            round=standing.round,
            generic=generic,
            client_counts=self.observer.data.client_counts,
            test_counts=self.test_counts,
            participated=standing.participated.copy(),
            local_test=self.view.scheme,
            personal=scores if by_class else None,  # nodes may tell totals
            labels=None if generic.logits is None else self.observer.data.eval_labels,
            seed=self.view.seed,
            own_counts=self.view.own_counts if by_class else None,
        )


def private_mean(
    personal: Mapping[int, Mapping[str, Tensor]], names: Sequence[str], sizes: IntArray
) -> dict[str, Tensor]:
    """Average the participants' personal parts of the model, weighted by examples.

    A generic model that lacks a shared part (``batchnorm: local``, a personal head) borrows this
    mean, for evaluation only. States are read one after another.

    Args:
        personal: Personal tensors of the participants by cid.
        names: The model's personal tensors.
        sizes: (K,) training images of each client.
    """
    total = float(sum(sizes[cid] for cid in personal))
    if total == 0:
        return {}
    means: dict[str, Any] = {}
    for cid, own in personal.items():
        for name in names:
            if name in own and own[name].is_floating_point():
                means[name] = means.get(name, 0) + own[name] * (sizes[cid] / total)
    return means


def touches_backbone(names: Iterable[str]) -> bool:
    """Return True if a personal model needs a forward pass of its own backbone."""
    return any(name.startswith("backbone.") for name in names)


@dataclass(frozen=True)
class _ScoredPart:
    """The clients and test images of one request."""

    start: int  # of the test images
    stop: int
    generic: bool
    cids: list[int]
    base: bool = True
    own: bool = True  # score the clients' personal models


def _request(
    standing: Standing, whole: ScoreRequest, lone: Container[int], part: _ScoredPart
) -> ScoreRequest:
    """Return the request of a part; only now are the personal states of its clients read.

    Args:
        standing: The models to be scored.
        whole: What all requests have in common.
        lone: The clients that are scored by a model of their own.
        part: What the request is about.
    """
    own = {} if standing.at_nodes else standing.personal
    return replace(
        whole,
        start=part.start,
        stop=part.stop,
        generic=part.generic,
        keep_logits=part.generic and whole.keep_logits,
        clients=tuple(
            ClientRequest(
                cid, own.get(cid, {}) if part.own and cid in lone else None, base=part.base
            )
            for cid in part.cids
        ),
    )


def _chunk_size(personal: Mapping[int, Mapping[str, Tensor]]) -> int:
    """Return the number of personal models in one request, from the size of the first state."""
    for own in personal.values():
        size = sum(tensor.nbytes for tensor in own.values())
        return max(1, min(CHUNK_CLIENTS, CHUNK_BYTES // max(size, 1)))
    return CHUNK_CLIENTS


def _add(a: ClientHits | None, b: ClientHits | None) -> ClientHits | None:
    """Add hits on two pieces of the test set; None is nothing."""
    if a is None or b is None:
        return a if b is None else b
    return a + b
