"""Strategy of a run with a changed generic linear head; the other verbs are unchanged.

The new head replaces the old head in the broadcast, so generic and personal models, fine-tuning and
refresh follow the method. The trained weight travels in the broadcast too: where the trained weight
is missing, no head was changed and every verb is the strategy's own.
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
SENT = "realign/sent/"  # prefix of the tensors sent by a method that learns


def head_of(names: LinearNames, tensors: Mapping[str, Tensor]) -> Head:
    """Return a linear head from its tensors, on the CPU; a missing bias is zero."""
    weight = tensors[names.weight].cpu()
    bias = torch.zeros(len(weight)) if names.bias is None else tensors[names.bias].cpu()
    return {"weight": weight, "bias": bias}


def _asked(verb: AnyVerb) -> AnyVerb:
    """Return a verb that calls the same verb of the strategy ``base``."""

    @wraps(verb)
    def ask(self: Realigned, *args: object, **options: object) -> object:
        return getattr(self.base, verb.__name__)(*args, **options)

    return cast("AnyVerb", ask)


@dataclass(frozen=True)
class Realigned(Strategy):
    """Strategy ``base`` with another generic head, also while that head is being learnt."""

    base: Strategy
    head: LinearNames
    local: LinearNames | None = None  # the clients' own linear head, if the method uses its norms
    learner: Learner | None = None  # the task of :meth:`local_update`

    refuses = _asked(Strategy.refuses)
    needs_beyond_mean = _asked(Strategy.needs_beyond_mean)
    note = _asked(Strategy.note)
    hint = _asked(Strategy.hint)
    build = _asked(Strategy.build)
    init = _asked(Strategy.init)
    init_personal = _asked(Strategy.init_personal)
    personal_weights = _asked(Strategy.personal_weights)
    objective = _asked(Strategy.objective)
    adapt = _asked(Strategy.adapt)  # from the new head, as refresh
    refresh = _asked(Strategy.refresh)

    @property
    def adapt_epochs(self) -> int:
        """Epochs of ``adapt`` of the strategy ``base``."""
        return self.base.adapt_epochs

    def generic(self, model: Model, broadcast: Mapping[str, Tensor]) -> dict[str, HeadFunction]:
        """Return the new head alone; before the change, all heads of the strategy."""
        heads = self.base.generic(model, broadcast)
        return {self.head.head: heads[self.head.head]} if TRAINED in broadcast else heads

    def personal(
        self, model: Model, broadcast: Mapping[str, Tensor], personal: Mapping[str, Tensor]
    ) -> dict[str, HeadFunction]:
        """Return the primary personal head; with local norms, the head of LA-FR."""
        heads = self.base.personal(model, broadcast, personal)
        if TRAINED not in broadcast:
            return heads
        if self.local is None:
            return dict(list(heads.items())[:1])
        weight = local_realign(broadcast[TRAINED], personal[self.local.weight])
        bias = None if self.head.bias is None else {**model.state(), **broadcast}[self.head.bias]
        return {"realigned": partial(linear, weight=weight, bias=bias)}

    def local_update(self, client: Client) -> Update:
        """Return the update of learning on the client's features; the backbone is frozen."""
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
        """Average the shared tensors; keep the plain sums in ``private``."""
        return replace(super().aggregate(state, total), private=total.plain)


@dataclass(frozen=True)
class PooledRealigned(Realigned):
    """Realigned strategy whose head is learnt on all clients' images at once: an oracle."""

    traits = StrategyTraits(pools=True)
