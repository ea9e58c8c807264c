"""Equalisation loss: Tan et al., Equalization loss for long-tailed object recognition, CVPR 2020.

https://arxiv.org/abs/2003.05176
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from fedlt.client import ClientPlugin, PluginTraits
from fedlt.config.ranges import Share
from fedlt.losses import equalisation, kept_in_softmax

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from fedlt.client import Batch, Client


@dataclass(frozen=True)
class Equalisation(ClientPlugin):
    """Cross-entropy whose softmax often leaves out rare classes on images of other classes.

    Rare classes are those whose share in the file's ``prior`` is below the threshold, absent
    classes included. Predictions use all classes.
    """

    traits = PluginTraits(per_image=True)

    threshold: Share = 0.05  # lambda: a class with a smaller share is rare
    gamma: Share = 0.9  # probability that a rare class is left out

    def views(
        self, client: Client, batches: Iterator[Batch], generator: torch.Generator
    ) -> Iterator[Batch]:
        """Yield the batches with a random draw beta for each image and class."""
        num_classes = client.tensors["class_counts"].shape[0]
        for batch in batches:
            ignored = torch.rand((len(batch.labels), num_classes), generator=generator) < self.gamma
            drawn = ignored.to(batch.labels.device)
            yield replace(batch, extra={**batch.extra, "equalisation": drawn})

    def loss(self, logits: Tensor, batch: Batch, client: Client) -> Tensor:
        """Return the mean cross-entropy; each image's softmax is over the classes it keeps."""
        rare = client.tensors["log_prior"].softmax(dim=0) < self.threshold
        kept = kept_in_softmax(batch.labels, rare, batch.extra["equalisation"])
        return equalisation(logits, batch.labels, kept)
