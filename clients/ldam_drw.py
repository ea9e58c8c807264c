"""LDAM with deferred re-weighting: Cao et al., NeurIPS 2019, https://arxiv.org/abs/1906.07413."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from fedlt.client import ClientPlugin, PluginTraits
from fedlt.config.ranges import NotNegative, Positive, Share, ShareBelowOne
from fedlt.losses import effective_number_weights, ldam, ldam_margins

if TYPE_CHECKING:
    from torch import Tensor

    from fedlt.client import Batch, Client
    from fedlt.models import Model


@dataclass(frozen=True)
class LdamDrw(ClientPlugin):
    """Margins that grow as n^(-1/4) on a cosine head; class-balanced weights in the last rounds.

    n are the client's class counts; "last rounds" counts global rounds. Every linear head of the
    strategy becomes a cosine head, so that margins are differences of cosines.
    """

    traits = PluginTraits(cosine_heads=True, per_image=True)

    max_margin: NotNegative = 0.5  # margin of the rarest class, as a cosine
    scale: Positive = 30.0  # s: factor of the cosines
    beta: ShareBelowOne = 0.9999  # beta of the effective numbers
    drw_start: Share = 0.8  # share of the rounds without re-weighting; 1: never

    def build(self, model: Model) -> None:
        """Replace linear heads by cosine heads."""
        model.use_cosine_heads(self.scale)

    def setup(self, client: Client) -> None:
        """Compute the margins and this round's class weights."""
        counts = client.tensors["class_counts"]
        margins = ldam_margins(counts, max_margin=self.max_margin)
        client.tensors["margins"] = self.scale * margins
        weights = effective_number_weights(counts, beta=self.beta)
        is_late = client.round > self.drw_start * client.rounds
        client.tensors["class_weights"] = weights if is_late else torch.ones_like(weights)

    def loss(self, logits: Tensor, batch: Batch, client: Client) -> Tensor:
        """Return the class-weighted mean of the cross-entropy with margins, equation 13."""
        tensors = client.tensors
        return ldam(logits, batch.labels, tensors["margins"], tensors["class_weights"])

    def label_weights(self, client: Client) -> Tensor:
        """Return the class weights (C,); their sum over a batch divides the loss."""
        return client.tensors["class_weights"]
