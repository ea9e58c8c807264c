"""Requests to score models, and the workers' answers. Both travel between processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from fedlt.evaluation.scores import ClientHits, GenericScores


@dataclass(frozen=True)
class ClientRequest:
    """Request to score one client's personal model, and the global model on the client's view."""

    cid: int
    personal: Mapping[str, Tensor] | None  # personal tensors; None: do not score this model
    base: bool = True  # True: score the global model's primary head under this client's masks
    refreshed: Mapping[str, Tensor] = field(default_factory=dict)  # shared tensors after tuning
    steps: int = 0  # local steps of the training behind ``refreshed``


@dataclass(frozen=True)
class ScoreRequest:
    """Request to score models on the test images ``start`` to ``stop``."""

    round: int
    broadcast: Mapping[str, Tensor]
    fixed: Mapping[str, Tensor]
    private_mean: Mapping[str, Tensor]  # values of personal tensors in the global model
    start: int
    stop: int
    generic: bool  # True: score the global model's heads
    keep_logits: bool  # True: also return the logits of these heads
    clients: tuple[ClientRequest, ...]
    global_counts: tuple[int, ...] | None = None  # (C,) class counts that a refresh may use


@dataclass(frozen=True)
class Scores:
    """The answer to a request."""

    generic: GenericScores | None
    clients: dict[int, tuple[ClientHits | None, ClientHits | None]] = field(default_factory=dict)
    # by client: hits of its own heads, and of the global model's primary head; None: not asked for
    steps: dict[int, int] = field(default_factory=dict)  # by client: steps of tuning for scoring
