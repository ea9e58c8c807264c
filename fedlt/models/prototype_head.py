"""Head of FedNH: unit class prototypes that the server moves, and a learnable scale.

Dai et al., Tackling data heterogeneity in federated learning with class prototypes, AAAI 2023,
https://arxiv.org/abs/2212.02758.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

PrototypeStart = Literal["orthogonal", "uniform"]


class PrototypeHead(nn.Module):
    """Head with one prototype per class: logits ``scale * cos(features, prototype)``.

    The prototypes are drawn from torch's global generator. ``orthogonal`` prototypes are
    orthonormal if D >= C, else the normalised rows of a matrix with orthonormal columns.
    ``uniform`` prototypes are each uniform on the unit sphere.

    Args:
        num_features: Features per stream, D.
        num_classes: Number of classes, C.
        scale: Initial value of the learnable scale.
        start: Kind of initial prototypes.
    """

    def __init__(
        self, num_features: int, num_classes: int, *, scale: float, start: PrototypeStart
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = num_features, num_classes
        drawn = torch.randn(num_classes, num_features)
        if start == "orthogonal":
            nn.init.orthogonal_(drawn)
        self.prototypes = nn.Parameter(F.normalize(drawn, dim=1))  # (C, D)
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, S, D) to logits (B, S, C)."""
        prototypes = F.normalize(self.prototypes, dim=1)
        return self.scale * F.linear(F.normalize(features, dim=-1), prototypes)


def move_prototypes(prototypes: Tensor, sums: Tensor, momentum: float) -> Tensor:
    """Return unit prototypes moved towards the directions of the class means.

    Args:
        prototypes: (C, D), unit rows; not written.
        sums: (C, D), sums of the unit features of each class, which point as the class means do.
            A class without features has a row of zeros and keeps its prototype.
        momentum: Share of the old prototype, 0 .. 1.

    Returns:
        Unit prototypes (C, D).
    """
    held = (sums != 0).any(dim=1, keepdim=True)
    moved = momentum * prototypes + (1 - momentum) * F.normalize(sums, dim=1)
    return torch.where(held, F.normalize(moved, dim=1), prototypes)
