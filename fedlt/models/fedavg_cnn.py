"""The convolutional network of the first paper on federated averaging.

McMahan et al., Communication-efficient learning of deep networks from decentralized data, AISTATS
2017, section 3, https://arxiv.org/abs/1602.05629: two 5x5 convolutions of 32 and 64 channels, each
followed by 2x2 max-pooling, and a hidden layer of 512 units with ReLU. Here the convolutions have
padding 2 and ReLU, too. Images of 28 x 28 x 1 with 10 classes then give the paper's 1,663,370
parameters. FedNTD (Lee et al., NeurIPS 2022, https://arxiv.org/abs/2106.03097) trains the same
network on images of 32 x 32 x 3: 2,156,490 parameters with 10 classes.
"""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from fedlt.errors import FedltError
from fedlt.models.layers import Backbone, Split, channels_last_on_cpu, make_norm


class FedAvgCnn(Backbone):
    """Two 5x5 convolutions with ReLU and 2x2 max-pooling, and a hidden layer with ReLU.

    The weights start as torch starts them. A layer has a bias if it has no norm.

    Args:
        image_shape: (Ch, H, W) of the images.
        width: Channels of the first convolution, w; the second has 2w, the hidden layer D = 16w.
        norm: ``none``, as published; or ``batch`` or ``group``, before every ReLU.
    """

    def __init__(self, image_shape: tuple[int, int, int], *, width: int, norm: str) -> None:
        super().__init__()
        self.num_features = 16 * width
        has_bias = norm == "none"
        in_channels, height, wide = image_shape
        self.conv1 = nn.Conv2d(in_channels, width, 5, padding=2, bias=has_bias)
        self.norm1 = make_norm(norm, width)
        self.conv2 = nn.Conv2d(width, 2 * width, 5, padding=2, bias=has_bias)
        self.norm2 = make_norm(norm, 2 * width)
        pixels = (height // 4) * (wide // 4)
        self.hidden = nn.Linear(2 * width * pixels, self.num_features, bias=has_bias)
        self.norm3 = make_norm(norm, self.num_features)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, Ch, H, W) to features (B, 1, D)."""
        maps = channels_last_on_cpu(x)
        for conv, norm in ((self.conv1, self.norm1), (self.conv2, self.norm2)):
            # pooling first gives the same values as ReLU first, on a quarter of the map
            maps = F.relu(norm(F.max_pool2d(conv(maps), 2)))  # (B, w, H/2, W/2), (B, 2w, H/4, W/4)
        units = self.hidden(maps.flatten(1))[:, :, None, None]  # (B, D, 1, 1): norms take maps
        return F.relu(self.norm3(units)).flatten(1).unsqueeze(1)

    def split(self, own_stages: int) -> Split:
        """Refuse a split: a hidden layer over all pixels is no stage of an expert."""
        raise FedltError(
            "backbone fedavg_cnn cannot be split into experts: its hidden layer is over all "
            "pixels; take model.name cnn or a resnet"
        )
