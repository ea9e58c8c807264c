"""Check of networks with several streams: logits are (B, S, C), and S is not always 1."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fedlt.check.findings import Note, Violation
from fedlt.check.server import COHORT, total_of, updates_of
from fedlt.check.source_lines import Places, place, root_cause
from fedlt.check.tiny_federation import Subject
from fedlt.engines.rehearsal import rehearse
from fedlt.errors import FedltError, one_line
from fedlt.flower.server_half import make_server_half
from fedlt.flower.stock import StockStrategy
from fedlt.models.cnn import Cnn

_BACKBONE = f"{__name__}:TwoStreams"
_VERBS = ("objective", "loss", "local_update", "predict", "generic", "personal", "aggregate")


class TwoStreams(Cnn):
    """Small convolutional network with a second stream: the features in reverse order."""

    def __init__(self, in_channels: int, image_size: int, width: int, norm: str) -> None:
        super().__init__(in_channels, width=width, norm=norm)
        self.num_streams = 2

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, Ch, H, W) to features (B, 2, D)."""
        features = super().forward(x)
        return torch.cat([features, features.flip(2)], dim=1)


def runs_on_streams(subject: Subject) -> str:
    """Check a round on a two-stream network: a task of every client, the server's step, every head.

    Methods that make streams of their own are tried on streams by the other checks.
    """
    own = subject.bench().worker.model.num_streams
    if own > 1:
        return f"has {own} streams of its own"
    model = subject.config.model.model_copy(update={"name": _BACKBONE})
    changed = Subject(subject.config.model_copy(update={"model": model}), subject.section)
    try:
        losses = _try_round(changed)
    except (Exception, SystemExit) as error:
        cause = root_cause(error)
        if isinstance(cause, FedltError):
            return Note(f"refuses a network of two streams: {cause}")
        _try_round(subject)  # a failure on one stream, too, is not caused by the streams
        raise Violation(
            f"on a network of two streams it fails: {one_line(cause)}",
            change="features are (B, S, D) and logits (B, S, C), one row a stream: reduce over S, "
            "or leave that to predict and to super()",
            where=Places(subject).of_error(cause.__traceback__) or place(subject, *_VERBS),
        ) from error
    if not all(map(math.isfinite, losses)):
        raise Violation(
            "on a network of two streams its losses are not finite",
            change="look for a mean or a logarithm over the axis of streams",
            where=place(subject, *_VERBS),
        )
    return "a round on a network of two streams"


def _try_round(subject: Subject) -> list[float]:
    """Return the clients' metrics of a round without an engine."""
    parties = subject.parties
    rehearse(parties, make_server_half(parties.view))
    bench = subject.bench()
    updates = updates_of(bench, COHORT)
    if not isinstance(parties.view.strategy, StockStrategy):
        parties.view.strategy.aggregate(bench.server.state, total_of(bench, updates))
    return [value for one in updates.values() for value in one.metrics.values()]
