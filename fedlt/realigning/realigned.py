"""A run's strategy with its generic linear head changed; everything else is its own.

The new head takes the old one's place in what the server sends, so generic and personal models,
fine-tuning and refresh are those of the method. The trained weight travels beside it: where it is
missing, nothing was changed and every verb is the strategy's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import Tensor
from torch.nn.functional import linear

from fedlt.models.class_statistics import client_features
from fedlt.models.realign import local_realign
from fedlt.realigning.changes import Learner
from fedlt.realigning.linear_head import LinearNames
from fedlt.rng import torch_generator
from fedlt.strategy import (
    HeadFunction,
    ServerState,
    Strategy,
    StrategyTraits,
    Total,
    Update,
    prefixed,
    under,
)

if TYPE_CHECKING:
    from fedlt.client import Client
    from fedlt.models import Model
    from fedlt.models.linear_probe import Head

AnyVerb = TypeVar("AnyVerb", bound=Callable[..., Any])  # a function of Strategy

TRAINED = "realign/trained"  # the head's weight before it was changed
SENT = "realign/sent/"  # before the names of what a method that learns sends


def head_of(names: LinearNames, tensors: Mapping[str, Tensor]) -> Head:
    """Return a linear head from the tensors that hold it, on the CPU; without a bias it is zero."""
    weight = tensors[names.weight].cpu()
    bias = torch.zeros(len(weight)) if names.bias is None else tensors[names.bias].cpu()
    return {"weight": weight, "bias": bias}


def _asked(verb: AnyVerb) -> AnyVerb:
    """Return a verb of a strategy that asks the strategy ``base`` instead."""

    @wraps(verb)
    def ask(self: Realigned, *args: object, **options: object) -> object:
        return getattr(self.base, verb.__name__)(*args, **options)

    return cast("AnyVerb", ask)


@dataclass(frozen=True)
class Realigned(Strategy):
    """The strategy ``base`` with another generic head, or while that one is being learnt."""

    base: Strategy
    head: LinearNames
    local: LinearNames | None = None  # the clients' own linear head, where its norms are wanted
    learner: Learner | None = None  # what :meth:`local_update` does

    refuses = _asked(Strategy.refuses)
    note = _asked(Strategy.note)
    build = _asked(Strategy.build)
    init = _asked(Strategy.init)
    init_personal = _asked(Strategy.init_personal)
    personal_weights = _asked(Strategy.personal_weights)
    objective = _asked(Strategy.objective)
    adapt = _asked(Strategy.adapt)  # from the new head, as refresh
    refresh = _asked(Strategy.refresh)

    @property
    def adapt_epochs(self) -> int:
        """As the strategy has it."""
        return self.base.adapt_epochs

    def generic(self, model: Model, broadcast: Mapping[str, Tensor]) -> dict[str, HeadFunction]:
        """Return the new head alone; before the change all of the strategy's."""
        heads = self.base.generic(model, broadcast)
        return {self.head.head: heads[self.head.head]} if TRAINED in broadcast else heads

    def personal(
        self, model: Model, broadcast: Mapping[str, Tensor], personal: Mapping[str, Tensor]
    ) -> dict[str, HeadFunction]:
        """Return the primary personal head; LA-FR's where local norms are wanted."""
        heads = self.base.personal(model, broadcast, personal)
        if TRAINED not in broadcast:
            return heads
        if self.local is None:
            return dict(list(heads.items())[:1])
        weight = local_realign(broadcast[TRAINED], personal[self.local.weight])
        bias = None if self.head.bias is None else {**model.state(), **broadcast}[self.head.bias]
        return {"realigned": partial(linear, weight=weight, bias=bias)}

    def local_update(self, client: Client) -> Update:
        """Learn on the features of this client's images; the backbone stays as it is."""
        assert self.learner is not None
        head, size = (
            head_of(self.head, {**client.model.state(), **client.broadcast}),
            client.data.num_examples,
        )
        sent = {name: tensor.cpu() for name, tensor in under(SENT, client.broadcast).items()}
        features, labels = torch.zeros(0, head["weight"].shape[1]), torch.zeros(0).long()
        if size:
            features, labels = (
                t.cpu() for t in client_features(client.model, client.data, client.broadcast)
            )
        generator = torch_generator(client.seed, "realign", client.round, client.cid)
        mean, total = self.learner.answer(head, sent, (features, labels), generator)
        return Update(
            sums=prefixed(SENT, mean),
            weight=float(size),
            metrics={"examples": float(size)},
            personal={},
            plain=total,
        )

    def aggregate(self, state: ServerState, total: Total) -> ServerState:
        """Average what is to be averaged, and keep what is to be added."""
        return replace(super().aggregate(state, total), private=total.plain)


@dataclass(frozen=True)
class PooledRealigned(Realigned):
    """The same, learnt on everybody's images at once: an oracle."""

    traits = StrategyTraits(pools=True)
