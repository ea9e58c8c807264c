"""A small convolutional network: the backbone for experiments on a few CPU cores."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from fedlt.models.layers import (
    Backbone,
    Pooled,
    Split,
    Trunk,
    channels_last_on_cpu,
    check_split,
    conv3x3,
    make_norm,
    reset_parameters,
)


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
        self.width, self.norm = width, norm
        sizes = (in_channels, width, 2 * width, 4 * width)
        self.layers = nn.Sequential(*_blocks(sizes, norm))
        reset_parameters(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, Ch, H, W) to features (B, 1, D)."""
        maps: Tensor = self.layers(channels_last_on_cpu(x))  # (B, D, H/4, W/4)
        return maps.mean((2, 3)).unsqueeze(1)

    def split(self, own_stages: int) -> Split:
        """Return the network cut before its last ``own_stages`` blocks."""
        check_split("Cnn", own_stages, 3)
        first = 3 - own_stages
        shared = Trunk(*self.layers[: 4 * first])
        return Split(shared, partial(_branch, self.width, self.norm, first))


def _blocks(sizes: Sequence[int], norm: str, first: int = 0) -> list[nn.Module]:
    """Return the layers of the blocks from ``first`` on.

    ``sizes`` lists channels: those of the input of block ``first``, then those of each block.
    """
    layers: list[nn.Module] = []
    for number in range(first, 3):
        given, width = sizes[number - first : number - first + 2]
        layers.append(conv3x3(given, width))
        if number < 2:
            layers.append(nn.MaxPool2d(2))  # pooling first: norm and ReLU see a quarter of the map
        layers += [make_norm(norm, width), nn.ReLU(inplace=True)]
    return layers


def _branch(width: int, norm: str, first: int, factor: float) -> Pooled:
    """Return new blocks from ``first`` on, their widths multiplied by ``factor``."""
    own = [max(1, round(factor * width * 2**number)) for number in range(first, 3)]
    layers = _blocks([width * 2 ** (first - 1), *own], norm, first)
    return Pooled(*layers, num_features=own[-1])
