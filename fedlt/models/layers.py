"""Base class and parts of the backbones: normalisation, convolution, initialisation, splits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from torch import Tensor, nn

from fedlt.errors import FedltError, nearest

Norm = Literal["batch", "group", "none"]
NORMS: Final[tuple[Norm, ...]] = ("batch", "group", "none")


class Backbone(nn.Module):
    """A feature extractor ``(B, Ch, H, W) -> (B, S, D)``."""

    num_features: int  # features per stream, D
    num_streams: int = 1  # streams per image, S
    num_blocks: int = 0  # blocks L that :meth:`block_features` shows; 0: the method is missing

    def block_features(self, x: Tensor) -> Tensor:
        """Map images (B, Ch, H, W) to the streams after every block, (B, L, S, D): for diagnostics.

        Raises:
            FedltError: If the backbone class does not define this method.
        """
        raise FedltError(f"backbone {type(self).__name__} has no block_features()")

    def split(self, own_stages: int) -> Split:
        """Return the network cut before its last stages, so that every expert gets its own copy.

        Args:
            own_stages: Number of last stages, at least 1; at least one stage must be left to share.

        Raises:
            FedltError: If the network cannot be cut there, or the class does not define a cut.
        """
        raise FedltError(
            f"backbone {type(self).__name__} cannot be split into experts: it has no split()"
        )


@dataclass(frozen=True)
class Split:
    """A backbone cut into its shared first blocks and a function that makes the last blocks."""

    shared: nn.Module  # the backbone's own first blocks: images (B, Ch, H, W) to maps
    make_branch: Callable[[float], Pooled]  # new last blocks, widths times a factor in (0, 1]


class Pooled(nn.Sequential):
    """Last blocks and global average pooling: maps (B, in, h, w) to features (B, 1, D)."""

    def __init__(self, *blocks: nn.Module, num_features: int) -> None:
        super().__init__(*blocks)
        self.num_features = num_features
        reset_parameters(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map the trunk's maps (B, in, h, w) to features (B, 1, D)."""
        for block in self:
            x = block(x)
        return x.mean((2, 3)).unsqueeze(1)


class Trunk(nn.Sequential):
    """The first blocks of a network, in the memory layout that the network's forward uses."""

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, Ch, H, W) to the maps that the branches take."""
        maps = channels_last_on_cpu(x)
        for block in self:
            maps = block(maps)
        return maps


def check_split(name: str, own_stages: int, stages: int) -> None:
    """Refuse a cut that would leave no stage to share, or none for the experts.

    Raises:
        FedltError: If ``own_stages`` is not in 1 .. stages - 1.
    """
    if not 1 <= own_stages < stages:
        raise FedltError(
            f"backbone {name}: of its {stages} stages experts can own 1 to {stages - 1}, "
            f"not {own_stages}"
        )


def group_count(channels: int) -> int:
    """Return the number of groups for GroupNorm over ``channels``.

    The number is the largest divisor up to 32 that leaves at least 4 channels per group, else 1.
    32 is the number of Wu and He, ECCV 2018 (https://arxiv.org/abs/1803.08494).
    """
    return max(g for g in range(1, max(1, min(32, channels // 4)) + 1) if channels % g == 0)


def make_norm(norm: str, channels: int) -> nn.Module:
    """Return BatchNorm or GroupNorm over ``channels``, or a module that changes nothing.

    Raises:
        FedltError: If ``norm`` is neither ``batch``, ``group`` nor ``none``.
    """
    if norm not in NORMS:
        raise FedltError(f"model.norm: unknown norm {norm!r}{nearest(norm, NORMS)}")
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    if norm == "none":
        return nn.Identity()
    return nn.GroupNorm(group_count(channels), channels)


def channels_last_on_cpu(x: Tensor) -> Tensor:
    """Return a CPU batch in channels-last memory layout, in which CPU convolutions are faster.

    The function uses views, so it works under ``torch.func.vmap`` and also marks one-channel
    images, whose layout is ambiguous. A batch that has this layout is not copied.

    Args:
        x: Images (B, Ch, H, W).

    Returns:
        The same values (B, Ch, H, W).
    """
    if x.device.type != "cpu":
        return x
    batch, channels, height, width = x.shape
    rows = x.permute(0, 2, 3, 1).flatten(2)  # (B, H, W * Ch)
    return rows.view(batch, height, width, channels).permute(0, 3, 1, 2)


def conv3x3(in_channels: int, out_channels: int, *, stride: int = 1) -> nn.Conv2d:
    """Return a 3x3 convolution without bias that keeps the image size at stride 1."""
    return nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)


def reset_parameters(backbone: nn.Module) -> None:
    """Initialise convolutions as He et al., ICCV 2015 (https://arxiv.org/abs/1502.01852), fan-out.

    Weights are drawn from torch's global generator, in module order.
    """
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
