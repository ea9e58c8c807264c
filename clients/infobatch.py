"""InfoBatch: Qin et al., Lossless training speed up by unbiased dynamic data pruning, ICLR 2024.

https://arxiv.org/abs/2303.04947, section 2.2 and appendix B (r = 0.5, delta = 0.875).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from fedlt.client import Batch, ClientPlugin, PluginTraits, batches_with_rows
from fedlt.config.ranges import Share, ShareBelowOne
from fedlt.data.augment import normalize
from fedlt.models.modes import evaluating
from fedlt.rng import torch_generator

if TYPE_CHECKING:
    from fedlt.client import Client


@dataclass(frozen=True)
class InfoBatch(ClientPlugin):
    """Leaves out a random part of the easy images and weights the kept easy images up.

    An image is easy if its loss under the model at the start of the epoch is below the client's
    mean. So clients keep nothing between rounds. The last rounds train on all images.
    """

    traits = PluginTraits(weighs_images=True)

    ratio: ShareBelowOne = 0.5  # r: probability that an easy image is left out
    until: Share = 0.875  # delta: share of the rounds in which images are left out

    def batches(self, client: Client, epoch: int) -> Iterator[Batch]:
        """Yield one epoch of the kept images, with their weights."""
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


def soft_prune(scores: Tensor, ratio: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return the positions of the images that an epoch keeps, and the factors of their losses.

    An image whose score is below the mean is left out with probability ``ratio``; if kept, its
    factor is 1 / (1 - ratio). The other images are kept with factor 1. So the weighted sum over the
    kept images is, in expectation, the sum over all images.

    Args:
        scores: Losses (n,), at least one.
        ratio: r in [0, 1).
        generator: CPU generator.

    Returns:
        Positions (k,), ascending, and factors (k,). At least one image is kept, since not all
        scores are below their mean.
    """
    easy = (scores < scores.mean()).cpu()
    kept = ~easy | (torch.rand(len(scores), generator=generator) >= ratio)
    factors = torch.where(easy, 1 / (1 - ratio), 1.0)
    return kept.nonzero().flatten(), factors[kept]


@torch.no_grad()
def image_losses(client: Client) -> Tensor:
    """Return the cross-entropy (n,) of each image under the client's model, in evaluation mode.

    Args:
        client: Client; the images are not augmented, and the model does not change.
    """
    model, data = client.model, client.data
    found = []
    with evaluating(model):
        for rows in torch.split(data.indices.to(data.labels.device), 8 * client.local.batch_size):
            logits = client.plugin.predict(model(normalize(data.images[rows], data.mean, data.std)))
            found.append(functional.cross_entropy(logits, data.labels[rows], reduction="none"))
    return torch.cat(found)
