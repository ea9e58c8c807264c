"""FedBN: Li et al., FedBN: Federated learning on non-IID features via local batch normalization.

ICLR 2021, https://arxiv.org/abs/2102.07623, algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedlt.errors import FedltError
from fedlt.models.batchnorm import apply_policy
from strategies.fedavg import FedAvg

if TYPE_CHECKING:
    from fedlt.models import Model


@dataclass(frozen=True)
class FedBN(FedAvg):
    """FedAvg with personal BatchNorm layers: weights and statistics stay at each client.

    BatchNorm layers are found by type, whatever their names. The method equals FedAvg under
    ``batchnorm: local``.
    """

    def build(self, model: Model) -> None:
        """Make every BatchNorm layer personal."""
        super().build(model)
        apply_policy(model, "local")
        if not model.names("personal"):
            raise FedltError(
                "strategy FedBN: the model has no BatchNorm; take model.norm: batch, with a CNN, "
                "an MLP or a ResNet"
            )
