"""Mixup: Zhang et al., mixup: Beyond empirical risk minimization, ICLR 2018.

https://arxiv.org/abs/1710.09412
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from fedlt.client import Batch, ClientPlugin, PluginTraits
from fedlt.config.ranges import NotNegative
from fedlt.rng import numpy_generator, torch_generator

if TYPE_CHECKING:
    from fedlt.client import Client


@dataclass(frozen=True)
class Mixup(ClientPlugin):
    """Mixes each image with another of its batch, and the losses of both labels in proportion.

    The proportion is one draw from Beta(alpha, alpha) for each batch. The loss plugin's loss is
    mixed, so any loss works that is a mean over images.
    """

    traits = PluginTraits(weighs_images=True)

    alpha: NotNegative = 1.0  # 0: no mixing

    def batches(self, client: Client, epoch: int) -> Iterator[Batch]:
        """Yield one epoch of batches of mixed images."""
        keys = (client.round, client.cid, epoch)
        shares = numpy_generator(client.seed, "mixup shares", *keys)
        partners = torch_generator(client.seed, "mixup partners", *keys)
        for batch in super().batches(client, epoch):
            share = shares.beta(self.alpha, self.alpha) if self.alpha else 1.0
            yield _mixed(batch, share, partners) if self.alpha else batch


def _mixed(batch: Batch, share: float, generator: torch.Generator) -> Batch:
    """Return share * batch + (1 - share) * the same batch in a random order."""
    order = torch.randperm(len(batch.labels), generator=generator).to(batch.labels.device)
    images = share * batch.images + (1 - share) * batch.images[order]
    shares = torch.full_like(batch.images[:, 0, 0, 0], share)  # (B,)
    return Batch(images, batch.labels, {"mixed": batch.labels[order], "share": shares})
