"""FedRep: Collins et al., Exploiting shared representations for personalized federated learning.

ICML 2021, https://arxiv.org/abs/2102.07078, algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedlt.client import add_metrics
from fedlt.config.ranges import Whole
from fedlt.models import LinearHead
from fedlt.strategy import Strategy, StrategyTraits, Update

if TYPE_CHECKING:
    from fedlt.client import Client
    from fedlt.models import Model


@dataclass(frozen=True)
class FedRep(Strategy):
    """Averaged backbone and personal head; a client trains first the head, then the backbone.

    The head takes ``head_epochs`` on the frozen backbone, then the backbone ``local.epochs`` under
    the frozen head. So the backbone gets as many passes as in every other method.
    """

    traits = StrategyTraits(sends="")

    head_epochs: Whole = 10  # tau in the paper; 0 leaves the head at its start, as in FedBABU

    def build(self, model: Model) -> None:
        """Add a personal head."""
        model.add_head("head", LinearHead(model.num_features, model.num_classes), group="personal")

    def local_update(self, client: Client) -> Update:
        """Train the head, then the backbone."""
        head = client.train(self.objective, epochs=self.head_epochs, only="heads")
        body = client.train(self.objective, only="body")
        return client.update({**add_metrics(head, body), "personal_steps": head["steps"]})
