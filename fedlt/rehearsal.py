"""Try a method once before anything is written: build, init, one forward pass, every head.

What a strategy or plugin gets wrong shows here, in one line that names the verb, instead of a
traceback in the middle of a run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fedlt.errors import FedltError, one_line
from fedlt.strategy import HeadFunction
from fedlt.worker import Worker

if TYPE_CHECKING:
    from fedlt.federation import Federation
    from fedlt.flower.adapter import ServerHalf

__all__ = ["rehearse"]


def rehearse(federation: Federation, server: ServerHalf) -> Worker:
    """Try the verbs that a run begins with, on two images, and return the worker that tried them.

    Raises:
        FedltError: If one of them fails or returns what a run cannot use.
    """
    name = type(federation.strategy).__name__
    step = "init"
    try:
        worker, state = Worker(federation), server.state
        step = "init or init_personal"
        client = worker.client(
            0,
            1,
            state.broadcast,
            fixed=state.fixed,
            personal={},
            global_counts=server.prior_counts([0]),
        )
        model = worker.model.eval()
        images = client.data.images[:2].float() / 255
        with torch.no_grad():
            step = "features"
            features = model.features(images)  # (2, S, D)
            broadcast = client.broadcast
            step = "generic"
            _try_heads(federation, features, federation.strategy.generic(model, broadcast))
            step = "personal or personal_weights"
            federation.strategy.personal_weights(model, broadcast, client.personal)
            heads = federation.strategy.personal(model, broadcast, client.personal)
            _try_heads(federation, features, heads)
    except Exception as error:
        raise FedltError(f"strategy {name}: {step} fails: {one_line(error)}") from error
    return worker


def _try_heads(federation: Federation, features: Tensor, heads: Mapping[str, HeadFunction]) -> None:
    """Raise unless every head gives logits (B, S, C) that the plugin can fuse to (B, C)."""
    batch, streams, _ = features.shape
    classes = federation.data.num_classes
    if not heads:
        raise ValueError("it returns no head; the first one it names is the primary")
    for name, head in heads.items():
        logits = head(features)
        if tuple(logits.shape) != (batch, streams, classes):
            raise ValueError(
                f"head {name!r} gives shape {tuple(logits.shape)} for {batch} images, "
                f"expected {(batch, streams, classes)}"
            )
        fused = tuple(federation.plugin.predict(logits).shape)
        if fused != (batch, classes):
            raise ValueError(f"predict gives shape {fused}, expected {(batch, classes)}")
