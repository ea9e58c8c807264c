"""A perceptron of one or more hidden layers: the smallest backbone, for trials and tiny images.

With ``depth`` 2 and ``norm`` none it is the 2NN of McMahan et al., AISTATS 2017, section 3,
https://arxiv.org/abs/1602.05629: two hidden layers of 200 units with ReLU; on images of 28 x 28
with 10 classes, 199,210 parameters.
"""

from __future__ import annotations

import math

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from fedlt.errors import FedltError
from fedlt.models.layers import Backbone, Split, make_norm


class Mlp(Backbone):
    """Backbone of fully connected layers over all pixels, each with a norm and ReLU.

    A layer has a bias if it has no norm.

    Args:
        image_shape: (Ch, H, W) of the images.
        width: Units of every hidden layer, D.
        norm: ``batch`` or ``group``, over the hidden units, or ``none``.
        depth: Number of hidden layers.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], *, width: int, norm: str, depth: int = 1
    ) -> None:
        super().__init__()
        self.num_features = width
        has_bias = norm == "none"
        self.hidden = nn.Linear(math.prod(image_shape), width, bias=has_bias)
        self.norm = make_norm(norm, width)
        more = range(depth - 1)
        self.deeper = nn.ModuleList(nn.Linear(width, width, bias=has_bias) for _ in more)
        self.norms = nn.ModuleList(make_norm(norm, width) for _ in more)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, Ch, H, W) to features (B, 1, D)."""
        layers = ((self.hidden, self.norm), *zip(self.deeper, self.norms, strict=True))
        units = x.flatten(1)
        for linear, norm in layers:
            maps = linear(units)[:, :, None, None]  # (B, D, 1, 1): the norms take maps
            units = F.relu(norm(maps)).flatten(1)
        return units.unsqueeze(1)

    def split(self, own_stages: int) -> Split:
        """Refuse a split: the experts of the literature have convolutions of their own."""
        raise FedltError(
            "backbone mlp cannot be split into experts: its layers are not cut; "
            "take model.name cnn or a resnet"
        )
