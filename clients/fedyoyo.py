"""FedYoYo: Yan et al., You are your own best teacher, ICCV 2025.

https://arxiv.org/abs/2503.06916
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from fedlt.client import ClientPlugin
from fedlt.data.distort import distort
from fedlt.losses import logit_adjusted, weak_to_strong

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from fedlt.client import Batch, Client

__all__ = ["FedYoYo"]


@dataclass(frozen=True)
class FedYoYo(ClientPlugin):
    """Logit adjustment on weak and strong views, and the weak ones teach the strong ones.

    The paper's prior is ``{use: mix, gamma: 0.1}``: a tenth of the client's own class mix in the
    population's. A batch holds the weak views, then the strong ones.
    """

    masks_absent: ClassVar[bool] = True

    weight: float = 4.0  # lambda: of the distillation
    tau: float = 1.0  # exponent of the prior
    warmup: float = 1 / 6  # share of the rounds in which the weight grows linearly

    def __post_init__(self) -> None:
        """Check the hyperparameters."""
        if self.weight < 0:
            raise ValueError(f"weight: {self.weight} is below 0")
        if self.tau < 0:
            raise ValueError(f"tau: {self.tau} is below 0")
        if not 0 <= self.warmup <= 1:
            raise ValueError(f"warmup: {self.warmup} is not in [0, 1]")

    def views(
        self, client: Client, batches: Iterator[Batch], generator: torch.Generator
    ) -> Iterator[Batch]:
        """Yield the weak views, then the strong ones that are made of them (2B)."""
        for batch in batches:
            yield batch.viewed(torch.cat([batch.images, distort(batch.images, generator)]))

    def loss(self, logits: Tensor, batch: Batch, client: Client) -> Tensor:
        """Return CE of both views + the grown weight times the distillation, on shifted logits."""
        log_prior = self.tau * client.tensors["log_prior"]
        ready = 1.0 if self.warmup == 0 else client.round / (self.warmup * client.rounds)
        weak, strong = (logits + log_prior).chunk(2)
        taught = weak_to_strong(weak, strong, batch.labels.chunk(2)[0])
        adjusted = logit_adjusted(logits, batch.labels, log_prior, tau=1.0)
        return adjusted + self.weight * min(ready, 1.0) * taught
