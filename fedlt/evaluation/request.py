"""What a worker is asked to score, and what it answers. Both travel between processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from fedlt.evaluation.scores import ClientHits, GenericScores


@dataclass(frozen=True)
class ClientRequest:
    """One client: its personal model, and the generic model on its view, are to be scored."""

    cid: int
    personal: Mapping[str, Tensor] | None  # None: leave the personal model out
    base: bool = True  # score the primary generic head under this client's masks
    refreshed: Mapping[str, Tensor] = field(default_factory=dict)  # shared tensors trained since
    steps: int = 0  # local steps that this training took


@dataclass(frozen=True)
class ScoreRequest:
    """Score models on the test images ``start`` to ``stop``."""

    round: int
    broadcast: Mapping[str, Tensor]
    fixed: Mapping[str, Tensor]
    private_mean: Mapping[str, Tensor]  # personal model tensors that the generic model borrows
    start: int
    stop: int
    generic: bool  # score the generic heads
    keep_logits: bool  # and return their logits
    clients: tuple[ClientRequest, ...]
    global_counts: tuple[int, ...] | None = None  # (C,) class counts that a refresh may use


@dataclass(frozen=True)
class Scores:
    """The answer to a request."""

    generic: GenericScores | None
    clients: dict[int, tuple[ClientHits | None, ClientHits | None]] = field(default_factory=dict)
    # per client: its own heads', and the primary generic head's; None where not asked for
    steps: dict[int, int] = field(default_factory=dict)  # per client: that tuned it for scoring
