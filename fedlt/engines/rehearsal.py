"""Rehearsal of a method before anything is written: build, init, a forward pass, every head.

An error of a strategy or plugin shows here, in one line that names the verb, instead of a traceback
in the middle of a run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from fedlt.config.raised import described
from fedlt.data.augment import unit_range
from fedlt.errors import FedltError
from fedlt.evaluation.counting import check_names
from fedlt.evaluation.request import ClientRequest, ScoreRequest
from fedlt.federation.evaluator import GenericModel
from fedlt.models.batchnorm import single_value_layers
from fedlt.strategy import HeadFunction, Strategy
from fedlt.worker.scorer import Host

if TYPE_CHECKING:
    from fedlt.client import Client
    from fedlt.federation import Parties, Terms
    from fedlt.flower.adapter import ServerHalf
    from fedlt.models import Model


@dataclass(frozen=True)
class Rehearsal:
    """Findings of a rehearsal."""

    host: Host  # the process that tried
    generic: GenericModel  # kind of generic model, see :func:`rehearse`
    alone: int = 0  # clients of one image, where BatchNorm trains by its running statistics
    hint: str = ""  # of the strategy

    def notes(self) -> list[str]:
        """Return notes for the user before the run, one line each."""
        hint = [self.hint] if self.hint else []
        if not self.alone:
            return hint
        clients = self.host.worker.shares.num_clients
        return [
            *hint,
            f"{self.alone} of {clients} clients hold a single image, of which BatchNorm has no "
            "variance: there it trains by its running statistics; partition.min_samples=2 or "
            "model.norm=group avoids that",
        ]


def rehearse(parties: Parties, server: ServerHalf) -> Rehearsal:
    """Return the findings of trying the first verbs of a run on two images.

    The generic model is ``none`` where the method has no generic head, ``average`` where its
    prediction depends on personal tensors, which are then averaged, else ``shared``.

    Raises:
        FedltError: If a verb fails or returns a value that a run cannot use.
    """
    strategy = parties.view.strategy
    name = type(strategy).__name__
    step = "init"
    try:
        host, state = Host(parties.shares, parties.observer), server.state
        step = "init or init_personal"
        client = host.worker.first_client(state, 0, server.prior_counts([0]))
        model = host.worker.model.eval()
        images = unit_range(client.data.images[:2])
        with torch.no_grad():
            step = "features"
            features = model.features(images)  # (2, S, D)
            broadcast = client.broadcast
            step = "generic"
            generic = strategy.generic(model, broadcast)
            if generic:
                check_names(tuple(generic), model.stream_names)
                _try_heads(parties.view, features, generic)
            step = "personal or personal_weights"
            strategy.personal_weights(model, broadcast, client.personal)
            heads = strategy.personal(model, broadcast, client.personal)
            if not heads:
                raise ValueError("it returns no head; the first one it names is the primary")
            _try_heads(parties.view, features, heads)
            step = "hint"
            is_asked = parties.view.config.privacy is None and state.round == 0
            hint = strategy.hint(client) if is_asked else ""
            step = "generic"
            kind = _find_generic(strategy, model, broadcast, images)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # sys.exit, too
        raise FedltError(f"strategy {name}: {step} fails: {described(error)}") from error
    _check_cached(client)
    return Rehearsal(host, kind, _try_alone(server, host), hint)


def _check_cached(client: Client) -> None:
    """Refuse batches of other images than the client's, if their features are cached."""
    if not client.model.reads_features or not client.data.num_examples:
        return
    if any(batch.origin is None for batch in islice(client.batches(), 1)):
        raise FedltError(
            "model.cache_features: the client plugin makes images of its own (mixtures), which "
            "have no features in the cache"
        )


def _try_alone(server: ServerHalf, host: Host) -> int:
    """Return the number of one-image clients if the model has BatchNorm, after trying one.

    Raises:
        FedltError: If the method cannot train on one image, or if no batch of the run would have
            more than one image where a BatchNorm needs more.
    """
    worker, shares = host.worker, host.worker.shares
    local, sizes, pools = shares.config.local, shares.sizes, shares.strategy.traits.pools
    alone = np.flatnonzero(sizes == 1) if not pools else np.zeros(0, dtype=np.int64)
    if not len(alone) and local.batch_size > 1:
        return 0
    cid = int(alone[0]) if len(alone) else int(np.flatnonzero(sizes)[0])
    image = unit_range(worker.client_data(cid).images[:1])
    layers = _single_layers(worker.model, image)
    if layers and (local.batch_size == 1 or len(alone) == np.count_nonzero(sizes)):
        key = "local.batch_size" if local.batch_size == 1 else "partition.min_samples"
        raise FedltError(
            f"{key}: every batch would be one image, of which BatchNorm (backbone.{layers[0]}) "
            f"has no variance; set {key}=2 or more, or model.norm=group"
        )
    if len(alone):
        _train_alone(server, host, cid)
    return len(alone) if layers else 0


def _single_layers(model: Model, image: Tensor) -> list[str]:
    """Return the layers of the backbone whose BatchNorm would train on one value per channel."""
    if model.are_features(image):
        return []
    fixed = set(model.names("fixed"))
    found = single_value_layers(model.backbone, image)
    return [layer for layer in found if f"backbone.{layer}.running_mean" not in fixed]


def _train_alone(server: ServerHalf, host: Host, cid: int) -> None:
    """Train a client of one image, and score the client's model."""
    state, counts, worker = server.state, server.prior_counts([cid]), host.worker
    client = worker.first_client(state, cid, counts)
    client.local = client.local.of_one_epoch()
    try:
        update = worker.train(client)
        own = {name: tensor.detach().clone() for name, tensor in update.personal.items()}
        request = ScoreRequest(
            round=1,
            broadcast=state.broadcast,
            fixed=state.fixed,
            private_mean={},
            start=0,
            stop=min(2, len(host.scorer.images)),
            generic=False,
            keep_logits=False,
            global_counts=None if counts is None else tuple(counts.tolist()),
            clients=(ClientRequest(cid, own, base=False),),
        )
        host.score(request)
    except Exception as error:
        raise FedltError(
            f"client {cid} holds a single image, on which its task fails: {described(error)}; "
            "set partition.min_samples=2 or more, or model.norm=group"
        ) from error


def _find_generic(
    strategy: Strategy, model: Model, broadcast: Mapping[str, Tensor], images: Tensor
) -> GenericModel:
    """Return the kind of generic model, found by changing the personal tensors of ``model``."""

    def predict() -> Tensor | None:
        for head in strategy.generic(model, broadcast).values():
            return head(model.features(images))
        return None

    first = predict()
    if first is None:
        return "none"
    for name in model.names("personal"):
        tensor = model.state()[name]
        if tensor.is_floating_point():
            tensor.add_(1.0)
    second = predict()
    return "shared" if second is not None and torch.equal(first, second) else "average"


def _try_heads(terms: Terms, features: Tensor, heads: Mapping[str, HeadFunction]) -> None:
    """Raise unless every head returns logits (B, S, C) that the plugin can fuse to (B, C)."""
    batch, streams, _ = features.shape
    classes = terms.num_classes
    for name, head in heads.items():
        logits = head(features)
        if tuple(logits.shape) != (batch, streams, classes):
            raise ValueError(
                f"head {name!r} gives shape {tuple(logits.shape)} for {batch} images, "
                f"expected {(batch, streams, classes)}"
            )
        fused = tuple(terms.plugin.predict(logits).shape)
        if fused != (batch, classes):
            raise ValueError(f"predict gives shape {fused}, expected {(batch, classes)}")
