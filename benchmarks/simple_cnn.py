"""The small CNN of pfl-research's CIFAR-10 benchmark, as a backbone with 128 features.

Granqvist et al., pfl-research: simulation framework for accelerating research in private federated
learning, NeurIPS 2024, https://arxiv.org/abs/2404.06430. It needs nothing but PyTorch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SimpleCnn(nn.Module):
    """Two 3x3 convolutions, max-pooling, one hidden layer; dropout after the last two.

    With a linear layer of 10 classes behind it, it has 1.63 M parameters on 32 x 32 images.

    Args:
        in_channels: Image channels Ch.
        image_size: Image side, pixels.
        width: Channels of the first convolution; the second has twice as many.
        norm: Not used: there is no normalisation.
    """

    num_features = 128
    num_streams = 1

    def __init__(
        self, in_channels: int = 3, image_size: int = 32, width: int | None = None, norm: str = ""
    ) -> None:
        super().__init__()
        first = width or 32
        pooled = (image_size - 4) // 2
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, first, 3),
            nn.ReLU(),
            nn.Conv2d(first, 2 * first, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Dropout(0.25),
            nn.Flatten(),
            nn.Linear(2 * first * pooled**2, self.num_features),
            nn.ReLU(),
            nn.Dropout(0.5),
        )
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(layer.weight)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, Ch, H, W) to features (B, 1, 128)."""
        features: Tensor = self.layers(images.contiguous(memory_format=torch.channels_last))
        return features[:, None]
