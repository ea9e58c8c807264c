"""Multi-expert backbones: shared first blocks, then separate last blocks for each expert.

The networks are those of RIDE (Wang et al., ICLR 2021, https://arxiv.org/abs/2010.01809) and
MDCS (Zhao et al., ICCV 2023, https://arxiv.org/abs/2308.09922). Expert k is stream k of the
features; the server averages expert k of one client with expert k of the others.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fedlt.errors import FedltError
from fedlt.models.layers import Backbone, Split


class Experts(Backbone):
    """Multi-expert backbone ``(B, Ch, H, W) -> (B, S, D)``, one stream per expert.

    Args:
        parts: The network, cut into shared blocks and a branch.
        count: Number of experts S.
        width: Factor for the widths of the branches, in (0, 1].
        branches: Number of branches: S, one per expert, or 1 that all experts share.
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
        """Return a backbone of full width with a single branch that all experts share.

        Experts then differ only in their heads. The shared first blocks are this backbone's own;
        the branch is newly initialised.
        """
        return Experts(self._parts, count=self.num_streams, width=1.0, branches=1)


def make_experts(backbone: nn.Module, *, count: int, width: float, own_stages: int) -> Experts:
    """Return a multi-expert backbone made from a plain backbone.

    The experts' branches are initialised from torch's global generator.

    Args:
        backbone: Backbone whose first blocks become the shared blocks.
        count: Number of experts S, at least 2.
        width: Factor for the widths of the experts' branches, in (0, 1].
        own_stages: Number of last stages that every expert has to itself.

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
