"""InfoBatch: Qin et al., Lossless training speed up by unbiased dynamic data pruning, ICLR 2024.

https://arxiv.org/abs/2303.04947, section 2.2 and appendix B (r = 0.5, delta = 0.875).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch

from fedlt.client import Batch, ClientPlugin, batches_with_rows
from fedlt.config.ranges import Share, ShareBelowOne
from fedlt.data.pruning import image_losses, soft_prune
from fedlt.rng import torch_generator

if TYPE_CHECKING:
    from fedlt.client import Client


@dataclass(frozen=True)
class InfoBatch(ClientPlugin):
    """Leaves out some of the images that the model finds easy, and weighs the kept ones up.

    Scores are the losses of the model at the start of the epoch, so that clients keep nothing from
    round to round. The last rounds train on all images.
    """

    weighs_images: ClassVar[bool] = True

    ratio: ShareBelowOne = 0.5  # r: how likely an image below the mean loss is left out
    until: Share = 0.875  # delta: share of the rounds in which images are left out

    def batches(self, client: Client, epoch: int) -> Iterator[Batch]:
        """Yield one epoch of what is kept."""
        data = client.data
        late = client.round > int(self.until * client.rounds + 1e-9)
        if late or self.ratio == 0 or data.num_examples == 0:
            yield from super().batches(client, epoch)
            return
        keys = (client.round, client.cid, epoch)
        generator = torch_generator(client.seed, "pruning", *keys)
        kept, factors = soft_prune(image_losses(client), self.ratio, generator)
        indices = data.indices[kept.to(data.indices.device)]
        weights = torch.zeros(len(data.labels))
        weights[indices.cpu()] = factors
        weights = weights.to(data.labels.device)  # (N,)
        for images, rows in batches_with_rows(client, epoch, replace(data, indices=indices)):
            extra, origin = {"weights": weights[rows]}, (data.images, rows)
            yield Batch(images, data.labels[rows], extra, origin)
