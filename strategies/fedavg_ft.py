"""FedAvg with fine-tuning: a few local epochs turn the global model into a personal one.

This is the baseline that personalised methods must beat. Wang et al., Federated evaluation of
on-device personalization, 2019, https://arxiv.org/abs/1910.10252.
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
    """FedAvg; a client fine-tunes the newest global model on its own data just before scoring.

    Training is FedAvg's, and the tuned model is dropped after scoring. The numbers are those of
    FedAvg under ``personal.refresh`` with the same scope and epochs.
    """

    scope: Literal["all", "head"] = "all"  # parameters that are tuned
    epochs: Count = 1

    @property
    def adapt_epochs(self) -> int:
        """Passes over a client's data just before scoring."""
        return self.epochs

    def adapt(self, client: Client) -> Tensors:
        """Return the tuned tensors, as ``personal.refresh`` makes them."""
        return self.refresh(client, scope=self.scope, epochs=self.epochs)
