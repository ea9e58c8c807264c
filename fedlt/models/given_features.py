"""The backbone ``identity``: the data are features already, and a head is all that is trained."""

from __future__ import annotations

import math

from torch import Tensor

from fedlt.errors import FedltError
from fedlt.models.layers import Backbone, Split


class GivenFeatures(Backbone):
    """Backbone without parameters: the features are the values of the image, D = Ch * H * W.

    Args:
        image_shape: (Ch, H, W) of the images; (d, 1, 1) of feature vectors.
    """

    def __init__(self, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.num_features = math.prod(image_shape)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, Ch, H, W) to features (B, 1, D)."""
        return x.flatten(1).unsqueeze(1)

    def split(self, own_stages: int) -> Split:
        """Refuse a split, since there is no stage."""
        raise FedltError("backbone identity cannot be split into experts: it has no stages")
