"""Class-balanced sampling: Kang et al., Decoupling representation and classifier, ICLR 2020.

https://arxiv.org/abs/1910.09217
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from fedlt.client import Batch, ClientPlugin, batches_with_rows
from fedlt.data.resampling import class_shares, draw_rows
from fedlt.rng import torch_generator

if TYPE_CHECKING:
    from fedlt.client import Client


@dataclass(frozen=True)
class ClassBalancedSampling(ClientPlugin):
    """Draws every class of the client equally often, then a random image of the class.

    An epoch has as many draws as the client has images. Personal heads that should learn the
    client's own class mix weight each class by its true share over its drawn share.
    """

    power: ClassVar[float] = 0.0  # q of p_c ~ n_c^q

    def batches(self, client: Client, epoch: int) -> Iterator[Batch]:
        """Yield one epoch of drawn images; ``own`` is a class's true share over its drawn share."""
        data = client.data
        labels = data.labels.index_select(0, data.indices.to(data.labels.device)).cpu()
        counts = labels.bincount(minlength=len(data.class_counts))
        shares = class_shares(counts, power=self.power)
        keys = (client.round, client.cid, epoch)
        generator = torch_generator(client.seed, "resampling", *keys)
        rows = draw_rows(labels, shares, len(labels), generator)
        drawn = replace(data, indices=data.indices[rows])
        true = class_shares(counts, power=1.0)
        own = (true / shares.clamp(min=1e-12)).float().to(data.labels.device)  # (C,)
        for images, positions in batches_with_rows(client, epoch, drawn):
            classes = data.labels[positions]
            yield Batch(images, classes, {"own": own[classes]}, (data.images, positions))
