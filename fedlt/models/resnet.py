"""Residual networks for small images: He et al., CVPR 2016, https://arxiv.org/abs/1512.03385.

The three-stage networks (ResNet-8, -20, -32) follow the paper's CIFAR section, with
parameter-free option-A shortcuts; the four-stage ones (ResNet-18, -34) are the paper's ImageNet
networks as the CIFAR literature uses them: 3x3 stem, no max-pooling, 1x1 projection shortcuts.
ResNet-10 and -50 have the paper's 7x7 stem and max-pooling, as torchvision has them: a bottleneck
halves the image in its 3x3 convolution. ResNet-10, one block a stage, is the small network of
ImageNet-LT (Liu et al., CVPR 2019, https://arxiv.org/abs/1904.05160).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar, Literal

import torch.nn.functional as F  # noqa: N812
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

_SAFE_CHANNELS = 8  # from so many input channels on, PyTorch's strided 1x1 convolution is safe


class PadShortcut(nn.Module):
    """Option A: subsample the image and pad the new channels with zeros, half on each side."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int) -> None:
        super().__init__()
        before = (out_channels - in_channels) // 2
        self.stride = stride
        self.padding = (0, 0, 0, 0, before, out_channels - in_channels - before)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in, H, W) to (B, out, H/stride, W/stride)."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], self.padding)


class Projection(nn.Conv2d):
    """1x1 convolution with a stride, safe for few channels.

    With fewer than 8 input channels, the backward pass of PyTorch 2.14 on a CPU without AVX-512
    writes outside its memory. There the pixels are chosen first, which gives the same values.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Map (B, in, H, W) to (B, out, H/stride, W/stride)."""
        if self.in_channels >= _SAFE_CHANNELS:
            return super().forward(input)
        down, across = self.stride
        return F.conv2d(input[:, :, ::down, ::across], self.weight)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with norms around a shortcut.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Stride of the first convolution and of the shortcut.
        norm: ``batch`` or ``group``.
        projects: Shortcut where the shape changes: a 1x1 convolution (True, option B) or padding
            with zeros (False, option A).
    """

    expansion: ClassVar[int] = 1  # channels of its output, times the stage's width

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int, norm: str, projects: bool
    ) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, out_channels, stride=stride)
        self.norm1 = make_norm(norm, out_channels)
        self.conv2 = conv3x3(out_channels, out_channels)
        self.norm2 = make_norm(norm, out_channels)
        self.shortcut = _shortcut(in_channels, out_channels, stride, norm, projects=projects)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in, H, W) to (B, out, H/stride, W/stride)."""
        y = F.relu(self.norm1(self.conv1(x)), inplace=True)
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x), inplace=True)


class Bottleneck(nn.Module):
    """Convolutions of 1x1, 3x3 and 1x1 with norms around a shortcut; a quarter of the width inside.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Stride of the 3x3 convolution and of the shortcut.
        norm: ``batch`` or ``group``.
        projects: As in :class:`BasicBlock`.
    """

    expansion: ClassVar[int] = 4

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int, norm: str, projects: bool
    ) -> None:
        super().__init__()
        inside = max(1, out_channels // self.expansion)
        self.conv1 = nn.Conv2d(in_channels, inside, 1, bias=False)
        self.norm1 = make_norm(norm, inside)
        self.conv2 = conv3x3(inside, inside, stride=stride)
        self.norm2 = make_norm(norm, inside)
        self.conv3 = nn.Conv2d(inside, out_channels, 1, bias=False)
        self.norm3 = make_norm(norm, out_channels)
        self.shortcut = _shortcut(in_channels, out_channels, stride, norm, projects=projects)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in, H, W) to (B, out, H/stride, W/stride)."""
        y = F.relu(self.norm1(self.conv1(x)), inplace=True)
        y = F.relu(self.norm2(self.conv2(y)), inplace=True)
        return F.relu(self.norm3(self.conv3(y)) + self.shortcut(x), inplace=True)


def _shortcut(
    in_channels: int, out_channels: int, stride: int, norm: str, *, projects: bool
) -> nn.Module:
    """Return the shortcut of a block."""
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    if not projects:
        return PadShortcut(in_channels, out_channels, stride=stride)
    project = Projection(in_channels, out_channels, 1, stride=stride, bias=False)
    return nn.Sequential(project, make_norm(norm, out_channels))


class ResNet(Backbone):
    """A residual network; each stage after the first halves the image.

    Args:
        in_channels: Image channels Ch.
        depths: Blocks per stage.
        width: Channels of the stem, and of the first stage's blocks; each further stage doubles
            them.
        norm: ``batch`` or ``group``.
        projects: Option B shortcuts (1x1 convolutions) instead of option A (zero padding).
        block: Kind of the blocks.
        stem: ``3x3``: one convolution; ``7x7``: one with stride 2, and max-pooling.
    """

    def __init__(
        self,
        in_channels: int,
        depths: tuple[int, ...],
        *,
        width: int,
        norm: str,
        projects: bool,
        block: type[BasicBlock | Bottleneck] = BasicBlock,
        stem: Literal["3x3", "7x7"] = "3x3",
    ) -> None:
        super().__init__()
        self.depths, self.width = depths, block.expansion * width  # of the first stage's output
        self._blocks = partial(block, norm=norm, projects=projects)
        first = conv3x3(in_channels, width)
        if stem == "7x7":
            first = nn.Conv2d(in_channels, width, 7, stride=2, padding=3, bias=False)
        self.stem = nn.Sequential(first, make_norm(norm, width), nn.ReLU(inplace=True))
        if stem == "7x7":
            self.stem.append(nn.MaxPool2d(3, stride=2, padding=1))
        widths = [self.width * 2**number for number in range(len(depths))]
        self.stages = nn.Sequential(*_stages(self._blocks, depths, [width, *widths]))
        self.num_features = widths[-1]
        reset_parameters(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, Ch, H, W) to features (B, 1, D)."""
        maps: Tensor = self.stages(self.stem(channels_last_on_cpu(x)))  # (B, D, h, w)
        return maps.mean((2, 3)).unsqueeze(1)

    def split(self, own_stages: int) -> Split:
        """Return the network cut before its last ``own_stages`` stages."""
        check_split("ResNet", own_stages, len(self.depths))
        first = len(self.depths) - own_stages
        shared = Trunk(self.stem, *self.stages[:first])
        return Split(shared, partial(_branch, self._blocks, self.depths, self.width, first))


def _stages(
    make: Callable[..., nn.Module], depths: Sequence[int], widths: Sequence[int], first: int = 0
) -> list[nn.Sequential]:
    """Return consecutive stages of blocks, beginning with stage number ``first`` of a network.

    ``widths`` lists the input's width, then each stage's. All stages but number 0 halve the image.
    """
    stages = []
    for number, depth in enumerate(depths):
        given, width = widths[number : number + 2]
        blocks = [make(given, width, stride=2 if first + number else 1)]
        blocks += [make(width, width, stride=1) for _ in range(depth - 1)]
        stages.append(nn.Sequential(*blocks))
    return stages


def _branch(
    make: Callable[..., nn.Module], depths: tuple[int, ...], width: int, first: int, factor: float
) -> Pooled:
    """Return new stages from ``first`` on, their widths multiplied by ``factor``."""
    own = [max(1, round(factor * width * 2**n)) for n in range(first, len(depths))]
    stages = _stages(make, depths[first:], [width * 2 ** (first - 1), *own], first)
    return Pooled(*stages, num_features=own[-1])
