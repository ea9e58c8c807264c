"""What the convolutional backbones share: normalisation, convolution, initialisation."""

from __future__ import annotations

from typing import Final, Literal

from torch import Tensor, nn

from fedlt.errors import FedltError, nearest

__all__ = [
    "NORMS",
    "Backbone",
    "Norm",
    "channels_last_on_cpu",
    "conv3x3",
    "group_count",
    "make_norm",
    "reset_parameters",
]

Norm = Literal["batch", "group"]
NORMS: Final[tuple[Norm, ...]] = ("batch", "group")


class Backbone(nn.Module):
    """A feature extractor ``(B, Ch, H, W) -> (B, S, D)``."""

    num_features: int  # features per stream, D
    num_streams: int = 1  # streams per image, S


def group_count(channels: int) -> int:
    """Return how many groups GroupNorm makes of ``channels``.

    The largest divisor that leaves at least 4 channels per group and is at most 32, the number of
    Wu and He, ECCV 2018 (https://arxiv.org/abs/1803.08494); 1 where no other divisor fits.
    """
    return max(g for g in range(1, max(1, min(32, channels // 4)) + 1) if channels % g == 0)


def make_norm(norm: str, channels: int) -> nn.Module:
    """Return BatchNorm or GroupNorm over ``channels``.

    Raises:
        FedltError: If ``norm`` is neither ``batch`` nor ``group``.
    """
    if norm not in NORMS:
        raise FedltError(f"model.norm: unknown norm {norm!r}{nearest(norm, NORMS)}")
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    return nn.GroupNorm(group_count(channels), channels)


def channels_last_on_cpu(x: Tensor) -> Tensor:
    """Lay a CPU batch out with the channels innermost, in which CPU convolutions are faster.

    Written with views, so that it works under ``torch.func.vmap`` and also marks one-channel
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
    """Draw every convolution by He et al., ICCV 2015 (https://arxiv.org/abs/1502.01852), fan-out.

    The draws come from torch's global generator, in module order.
    """
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
