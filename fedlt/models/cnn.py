"""A small convolutional network: the backbone for experiments on a few CPU cores."""

from __future__ import annotations

from torch import Tensor, nn

from fedlt.models.layers import (
    Backbone,
    channels_last_on_cpu,
    conv3x3,
    make_norm,
    reset_parameters,
)

__all__ = ["Cnn"]


class Cnn(Backbone):
    """Three blocks of 3x3 convolution, norm and ReLU; the first two pool 2x2 before the norm.

    Args:
        in_channels: Image channels Ch.
        width: Channels of the first block, w; the blocks have w, 2w, 4w, so D = 4w.
        norm: ``batch`` or ``group``.
    """

    def __init__(self, in_channels: int, *, width: int = 16, norm: str = "batch") -> None:
        super().__init__()
        self.num_features = 4 * width
        sizes = (in_channels, width, 2 * width, 4 * width)
        layers: list[nn.Module] = []
        for i in range(3):
            layers.append(conv3x3(sizes[i], sizes[i + 1]))
            if i < 2:
                layers.append(nn.MaxPool2d(2))  # first, so that norm and ReLU see a quarter
            layers += [make_norm(norm, sizes[i + 1]), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers)
        reset_parameters(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, Ch, H, W) to features (B, 1, D)."""
        maps: Tensor = self.layers(channels_last_on_cpu(x))  # (B, D, H/4, W/4)
        return maps.mean((2, 3)).unsqueeze(1)
