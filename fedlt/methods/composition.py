"""Composition of two client plugins: batches from the first plugin, objective from the second.

    data plugin   batches                       images of an epoch, their order and weights
    loss plugin   build, views, loss, predict   networks, views, objective, fused prediction
    both          setup, prepare                entries of client.tensors and client.material

A plugin that overrides the verbs of neither side is a loss plugin: plain cross-entropy. A plugin
that overrides verbs of both sides is whole, and composes with no other plugin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.func import vmap

from fedlt.client import Batch, ClientPlugin, PluginTraits
from fedlt.losses import cross_entropy
from fedlt.losses.cross_entropy import TINY

if TYPE_CHECKING:
    from fedlt.client import Client
    from fedlt.data.preparation import Preparation
    from fedlt.models import Model
    from fedlt.strategy import Tensors

PluginKind = Literal["data", "loss", "whole"]
_VERBS = {"data": ("batches",), "loss": ("build", "views", "loss", "predict")}


def kind_of(cls: type[ClientPlugin]) -> PluginKind:
    """Return the kind of a plugin (data, loss or whole), by the verbs that the plugin overrides."""
    data, loss = (
        any(getattr(cls, verb) is not getattr(ClientPlugin, verb) for verb in _VERBS[side])
        for side in ("data", "loss")
    )
    return "whole" if data and loss else "data" if data else "loss"


def is_plain(plugin: ClientPlugin) -> bool:
    """Return True if the loss of a plugin is plain cross-entropy."""
    return all(type(part).loss is ClientPlugin.loss for part in plugin.parts)


def weighted(
    loss: Callable[[Tensor, Batch], Tensor],
    logits: Tensor,
    batch: Batch,
    *,
    own: bool = False,
    label_weights: Tensor | None = None,
) -> Tensor:
    """Return the mean of a loss over a batch, with the weights and mixed labels of its images.

    Args:
        loss: (logits (B, S, C), batch) -> scalar, the mean over images of the loss per image,
            weighted by ``label_weights``.
        logits: (B, S, C).
        batch: ``weights``, ``mixed`` and ``share`` of its extra are read; without them the result
            is that of ``loss``, bit for bit.
        own: True to multiply by the extra ``own``, too: factors that restore the client's own mix.
        label_weights: w (C,) of :meth:`ClientPlugin.label_weights`; None: 1 for every class.

    Returns:
        sum of weight (share w_y l(y) + (1 - share) w_y' l(y')) over images, divided by the sum of
        (share w_y + (1 - share) w_y'); without ``label_weights`` that is the number of images. The
        images' own weights are in the numerator only, as factors of the losses.
    """
    extra = dict(batch.extra)
    weights, share, mixed = (extra.pop(name, None) for name in ("weights", "share", "mixed"))
    factors = [f for f in (weights, extra.get("own") if own else None) if f is not None]
    if not factors and mixed is None:
        return loss(logits, batch)

    def each(labels: Tensor) -> Tensor:
        def one(row: Tensor, image: Tensor, label: Tensor, more: Tensors) -> Tensor:
            whole = {name: tensor[None] for name, tensor in more.items()}
            return loss(row[None], Batch(image[None], label[None], whole))

        rows: Tensor = vmap(one)(logits, batch.images, labels, extra)  # (B,)
        return rows

    rows, sums = each(batch.labels), None
    if label_weights is not None:
        sums = label_weights[batch.labels]
        rows = rows * sums
    if mixed is not None and share is not None:
        others = each(mixed)
        if label_weights is not None and sums is not None:
            others = others * label_weights[mixed]
            sums = share * sums + (1 - share) * label_weights[mixed]
        rows = share * rows + (1 - share) * others
    for factor in factors:
        rows = rows * factor
    return rows.mean() if sums is None else rows.sum() / sums.sum().clamp(min=TINY)


def own_cross_entropy(logits: Tensor, batch: Batch) -> Tensor:
    """Return the cross-entropy on the client's own images, in the client's own class mix.

    For parts of a strategy that learn that mix, whichever images a data plugin draws.
    """
    return weighted(lambda z, b: cross_entropy(z, b.labels), logits, batch, own=True)


@dataclass(frozen=True)
class Composed(ClientPlugin):
    """Client plugin of a data plugin and a loss plugin: see :func:`compose`."""

    data: ClientPlugin
    objective: ClientPlugin

    @property
    def parts(self) -> tuple[ClientPlugin, ...]:
        """Return the data plugin, then the loss plugin."""
        return self.data, self.objective

    @property
    def traits(self) -> PluginTraits:  # type: ignore[override]  # of two objects, not a class
        """Return the loss plugin's traits, with the data plugin's traits that concern a run."""
        own, other = self.data.traits, self.objective.traits
        return replace(
            other,
            needs_global_prior=own.needs_global_prior or other.needs_global_prior,
            views_images=own.views_images or other.views_images,
            weighs_images=own.weighs_images or other.weighs_images,
        )

    @property
    def reference(self) -> str:  # type: ignore[override]
        """Return the privileged information that a plugin uses; empty if both are federated."""
        return self.data.reference or self.objective.reference

    def prepare(self, preparation: Preparation) -> Mapping[str, npt.NDArray[np.generic]]:
        """Prepare both plugins."""
        return _joined(*(part.prepare(preparation) for part in self.parts))

    def build(self, model: Model) -> None:
        """Add the networks of the loss plugin."""
        self.objective.build(model)

    def train_networks(self, client: Client) -> dict[str, float]:
        """Train the networks of the loss plugin."""
        return self.objective.train_networks(client)

    def setup(self, client: Client) -> None:
        """Set up both plugins, the data plugin first.

        Raises:
            ValueError: If the loss plugin replaces a tensor of the data plugin.
        """
        given = dict(client.tensors)
        self.data.setup(client)
        added = {n: t for n, t in client.tensors.items() if given.get(n) is not t}
        self.objective.setup(client)
        for name, tensor in added.items():
            if client.tensors.get(name) is not tensor:
                raise ValueError(f"setup: both plugins put {name!r} into client.tensors")

    def batches(self, client: Client, epoch: int) -> Iterator[Batch]:
        """Yield the data plugin's batches."""
        return self.data.batches(client, epoch)

    def views(
        self, client: Client, batches: Iterator[Batch], generator: torch.Generator
    ) -> Iterator[Batch]:
        """Yield the loss plugin's views."""
        return self.objective.views(client, batches, generator)

    def loss(self, logits: Tensor, batch: Batch, client: Client) -> Tensor:
        """Return the loss plugin's loss, under the weights in the batch."""
        weights = self.label_weights(client)
        return weighted(
            lambda z, b: self.objective.loss(z, b, client), logits, batch, label_weights=weights
        )

    def label_weights(self, client: Client) -> Tensor | None:
        """Return the class weights of the loss plugin."""
        return self.objective.label_weights(client)

    def predict(self, logits: Tensor) -> Tensor:
        """Fuse the streams as the loss plugin does."""
        return self.objective.predict(logits)


def compose(data: ClientPlugin, objective: ClientPlugin) -> Composed:
    """Return a data plugin and a loss plugin as one plugin.

    Raises:
        ValueError: If the two plugins do not compose, with the reason.
    """
    kind, other = kind_of(type(data)), kind_of(type(objective))
    if kind != "data":
        what = "is a loss plugin itself" if kind == "loss" else "makes batches for its own loss"
        raise ValueError(f"{_name(data)} {what}; only a data plugin takes another loss")
    if other != "loss":
        what = "is a data plugin" if other == "data" else "makes batches of its own"
        raise ValueError(f"loss: {_name(objective)} {what}; a loss plugin is needed")
    if data.traits.weighs_images and not objective.traits.per_image:
        raise ValueError(
            f"{_name(data)} weighs or mixes single images, and the loss of {_name(objective)} is "
            "no mean over single images"
        )
    return Composed(data, objective)


def _name(plugin: ClientPlugin) -> str:
    return type(plugin).__name__


def _joined(
    *parts: Mapping[str, npt.NDArray[np.generic]],
) -> Mapping[str, npt.NDArray[np.generic]]:
    return {name: array for part in parts for name, array in part.items()}
