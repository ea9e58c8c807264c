"""FedIR: Hsu, Qi and Brown, Federated visual classification with real-world data distribution.

ECCV 2020, https://arxiv.org/abs/2003.08082
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedlt.client import ClientPlugin, PluginTraits
from fedlt.losses import class_weighted_cross_entropy, importance_weights

if TYPE_CHECKING:
    from torch import Tensor

    from fedlt.client import Batch, Client


@dataclass(frozen=True)
class FedIR(ClientPlugin):
    """Cross-entropy weighted by p(y) / q_k(y): class shares of the population over the client's."""

    traits = PluginTraits(needs_global_prior=True, per_image=True)

    def setup(self, client: Client) -> None:
        """Compute the class weights of this client."""
        counts, log_prior = client.tensors["class_counts"], client.tensors["log_prior"]
        client.tensors["class_weights"] = importance_weights(counts, log_prior)

    def loss(self, logits: Tensor, batch: Batch, client: Client) -> Tensor:
        """Return sum(w(y) CE) / sum(w(y)) over the batch: self-normalised importance weights."""
        weights = client.tensors["class_weights"]
        return class_weighted_cross_entropy(logits, batch.labels, weights, divide_by="weights")

    def label_weights(self, client: Client) -> Tensor:
        """Return the class weights w (C,); their sum over a batch divides the loss."""
        return client.tensors["class_weights"]
