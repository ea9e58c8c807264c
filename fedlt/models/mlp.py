"""A perceptron with one hidden layer: the smallest backbone, for trials and for tiny images.

The layer has 200 units, as each of the two layers of McMahan et al., AISTATS 2017,
https://arxiv.org/abs/1602.05629.
"""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from fedlt.errors import FedltError
from fedlt.models.layers import Backbone, Split, make_norm


class Mlp(Backbone):
    """Backbone of one fully connected layer over all pixels, norm and ReLU.

    Args:
        in_channels: Image channels Ch.
        image_size: Image side, pixels.
        width: Hidden units, D.
        norm: ``batch`` or ``group``, over the hidden units.
    """

    def __init__(self, in_channels: int, image_size: int, *, width: int, norm: str) -> None:
        super().__init__()
        self.num_features = width
        self.hidden = nn.Linear(in_channels * image_size**2, width, bias=False)
        self.norm = make_norm(norm, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, Ch, H, W) to features (B, 1, D)."""
        units = self.hidden(x.flatten(1))[:, :, None, None]  # (B, D, 1, 1): the norms take maps
        return F.relu(self.norm(units)).flatten(1).unsqueeze(1)

    def split(self, own_stages: int) -> Split:
        """Refuse a split, since a network of one hidden layer has nothing to share."""
        raise FedltError(
            "backbone mlp cannot be split into experts: it has one layer, so nothing would be "
            "shared; take model.name cnn or a resnet"
        )
