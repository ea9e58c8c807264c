"""Class-balanced loss: Cui et al., CVPR 2019, https://arxiv.org/abs/1901.05555."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedlt.client import ClientPlugin, PluginTraits
from fedlt.config.ranges import ShareBelowOne
from fedlt.losses import class_weighted_cross_entropy, effective_number_weights

if TYPE_CHECKING:
    from torch import Tensor

    from fedlt.client import Batch, Client


@dataclass(frozen=True)
class ClassBalanced(ClientPlugin):
    """Cross-entropy with class weights: the inverse effective number of the client's images."""

    traits = PluginTraits(per_image=True)

    beta: ShareBelowOne = 0.9999

    def setup(self, client: Client) -> None:
        """Compute the class weights of this client."""
        counts = client.tensors["class_counts"]
        client.tensors["class_weights"] = effective_number_weights(counts, beta=self.beta)

    def loss(self, logits: Tensor, batch: Batch, client: Client) -> Tensor:
        """Return the sum of w(y) CE over the number of images, equation 12."""
        weights = client.tensors["class_weights"]
        return class_weighted_cross_entropy(logits, batch.labels, weights, divide_by="images")
