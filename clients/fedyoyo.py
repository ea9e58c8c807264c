"""FedYoYo: Yan et al., You are your own best teacher, ICCV 2025.

https://arxiv.org/abs/2503.06916
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fedlt.client import ClientPlugin, PluginTraits
from fedlt.config.ranges import NotNegative, Positive, Share
from fedlt.data.views import paired_views, plain_views_note
from fedlt.losses import logit_adjusted, weak_to_strong

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from torch import Tensor

    from fedlt.client import Batch, Client
    from fedlt.config import Config


@dataclass(frozen=True)
class FedYoYo(ClientPlugin):
    """Logit adjustment on weak and strong views; the weak view's logits teach the strong view's.

    The paper's prior is ``{use: mix, gamma: 0.1}``: one tenth client's class mix, nine tenths
    population's. A batch holds the weak views, then the strong ones. The defaults are those of the
    authors' published run.
    """

    traits = PluginTraits(masks_absent=True, views_images=True)

    weight: NotNegative = 4.0  # lambda: weight of the distillation
    tau: NotNegative = 1.5  # exponent of the prior
    temperature: Positive = 1.5  # T: temperature of the distillation
    warmup: Share = 1 / 6  # share of the rounds in which the weight grows linearly; 50 of 300
    rotation: NotNegative = 15.0  # largest rotation of a weak view, in degrees
    strong: Literal["autoaugment", "distort"] = "autoaugment"  # strong views; distort is cheaper

    def note(self, config: Config) -> str:
        """Return a line about the weak views where the file does not crop; else empty."""
        return plain_views_note("fedyoyo", config.local.augment, self.rotation)

    def views(
        self, client: Client, batches: Iterator[Batch], generator: torch.Generator
    ) -> Iterator[Batch]:
        """Yield batches (2B) of weak views, then strong views; each has its own crop and flip."""
        kinds = {"augment": client.local.augment, "strong": self.strong}
        return paired_views(client.data, batches, generator, degrees=self.rotation, **kinds)

    def loss(self, logits: Tensor, batch: Batch, client: Client) -> Tensor:
        """Return CE of both views + the warmed-up weight * distillation, on adjusted logits."""
        log_prior = self.tau * client.tensors["log_prior"]
        ready = 1.0 if self.warmup == 0 else client.round / (self.warmup * client.rounds)
        weak, strong = (logits + log_prior).chunk(2)
        labels = batch.labels.chunk(2)[0]
        taught = weak_to_strong(weak, strong, labels, temperature=self.temperature)
        adjusted = logit_adjusted(logits, batch.labels, log_prior, tau=1.0)
        return adjusted + self.weight * min(ready, 1.0) * taught
