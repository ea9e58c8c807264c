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
    """Margins by n^(-1/4) on a cosine head, and class-balanced weights in the last rounds.

    The counts are the client's own, the clock is the global round. Every linear head that the
    strategy adds becomes a cosine head, so that margins are cosines.
    """

    traits = PluginTraits(cosine_heads=True, per_image=True)

    max_margin: NotNegative = 0.5  # of the rarest class, as a cosine
    scale: Positive = 30.0  # of the cosines: s
    beta: ShareBelowOne = 0.9999  # of the effective numbers
    drw_start: Share = 0.8  # share of the rounds without re-weighting; 1: never

    def build(self, model: Model) -> None:
        """Ask for cosine heads."""
        model.use_cosine_heads(self.scale)

    def setup(self, client: Client) -> None:
        """Make the margins and this round's weights."""
        counts = client.tensors["class_counts"]
        margins = ldam_margins(counts, max_margin=self.max_margin)
        client.tensors["margins"] = self.scale * margins
        weights = effective_number_weights(counts, beta=self.beta)
        is_late = client.round > self.drw_start * client.rounds
        client.tensors["class_weights"] = weights if is_late else torch.ones_like(weights)

    def loss(self, logits: Tensor, batch: Batch, client: Client) -> Tensor:
        """Return the cross-entropy with margins, equation 13, a mean weighted by the classes."""
        tensors = client.tensors
        return ldam(logits, batch.labels, tensors["margins"], tensors["class_weights"])

    def label_weights(self, client: Client) -> Tensor:
        """Return the weights of the classes, whose sum over a batch divides the loss."""
        return client.tensors["class_weights"]
