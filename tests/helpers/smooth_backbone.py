"""A small backbone without kinks, which experts can split."""

from __future__ import annotations

from functools import partial

from torch import nn

from fedlt.models.layers import Backbone, Pooled, Split, Trunk, make_norm


class Smooth(Backbone):
    """A convolution that halves the image, and a second one; norms and tanh."""

    def __init__(self, channels, width, norm):
        super().__init__()
        self.num_features = 4 * width
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride=2, padding=1),
            make_norm(norm, width),
            nn.Tanh(),
            *second_block(width, norm, 1.0),
        )
        self.settings = width, norm

    def forward(self, x):
        return self.layers(x).mean((2, 3)).unsqueeze(1)

    def split(self, own_stages):
        return Split(Trunk(*self.layers[:3]), partial(branch, *self.settings))


def second_block(width, norm, factor):
    out = round(4 * width * factor)
    return [nn.Conv2d(width, out, 3, padding=1, bias=False), make_norm(norm, out), nn.Tanh()]


def branch(width, norm, factor):
    return Pooled(*second_block(width, norm, factor), num_features=round(4 * width * factor))


def smooth(*, in_channels, image_size, width, norm):
    return Smooth(in_channels, width or 4, norm)
