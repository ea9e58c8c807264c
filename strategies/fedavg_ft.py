"""FedAvg with fine-tuning: a few local epochs make the global model a client's own.

The baseline that personalised methods must beat: Wang et al., Federated evaluation of on-device
personalization, 2019, https://arxiv.org/abs/1910.10252.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fedlt.config.ranges import Count
from fedlt.strategy import Tensors
from strategies.fedavg import FedAvg

if TYPE_CHECKING:
    from fedlt.client import Client


@dataclass(frozen=True)
class FedAvgFT(FedAvg):
    """FedAvg; a client's model is the newest global model after ``epochs`` on its own data.

    It is made when it is scored and forgotten: training is FedAvg's. The same numbers as FedAvg
    under ``personal.refresh`` with the same scope and epochs.
    """

    scope: Literal["all", "head"] = "all"  # what is tuned
    epochs: Count = 1

    @property
    def adapt_epochs(self) -> int:
        """Passes over a client's data before it is scored."""
        return self.epochs

    def adapt(self, client: Client) -> Tensors:
        """Tune the model, as the common refresh does."""
        return self.refresh(client, scope=self.scope, epochs=self.epochs)
