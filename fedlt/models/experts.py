"""Experts as streams: shared first blocks, and for each expert last blocks of its own.

The multi-expert networks of RIDE (Wang et al., ICLR 2021, https://arxiv.org/abs/2010.01809) and
MDCS (Zhao et al., ICCV 2023, https://arxiv.org/abs/2308.09922). Expert k is stream k: clients'
experts are averaged by their numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fedlt.errors import FedltError
from fedlt.models.layers import Backbone, Split


class Experts(Backbone):
    """``(B, Ch, H, W) -> (B, S, D)``, one stream an expert.

    Args:
        parts: The network that was cut.
        count: Experts S.
        width: Factor of the widths of their own blocks, in (0, 1].
        branches: How many of them have blocks of their own: all, or 1 that all share.
    """

    def __init__(self, parts: Split, *, count: int, width: float, branches: int) -> None:
        super().__init__()
        self._parts = parts
        self.shared = parts.shared
        own = [parts.make_branch(width) for _ in range(branches)]
        self.branches = nn.ModuleList(own)
        self.num_streams, self.num_features = count, own[0].num_features

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, Ch, H, W) to features (B, S, D)."""
        maps = self.shared(x)
        features = torch.cat([branch(maps) for branch in self.branches], dim=1)
        return features.expand(-1, self.num_streams, -1)

    def folded(self) -> Experts:
        """Return one whole network of full width whose features all experts have in common.

        The experts are then only heads. The last blocks are drawn anew.
        """
        return Experts(self._parts, count=self.num_streams, width=1.0, branches=1)


def make_experts(backbone: nn.Module, *, count: int, width: float, own_stages: int) -> Experts:
    """Split a backbone; the experts' blocks are drawn from torch's global generator.

    Args:
        backbone: Its first blocks become the shared ones.
        count: Experts S, at least 2.
        width: Factor of the widths of their own blocks, in (0, 1].
        own_stages: Stages that every expert has for itself.

    Raises:
        FedltError: If the backbone cannot be split.
    """
    if not isinstance(backbone, Backbone):
        name = type(backbone).__name__
        raise FedltError(
            f"backbone {name} cannot be split into experts: derive it from "
            "fedlt.models.layers.Backbone and give it a split()"
        )
    return Experts(backbone.split(own_stages), count=count, width=width, branches=count)
