"""Classifier heads: features (B, S, D) to logits (B, S, C).

B images each have S streams (experts or tokens; 1 for a plain network) of D features, and there are
C classes. Weights have one row per class, (C, D), as in ``nn.Linear``.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from fedlt.errors import FedltError
from fedlt.models.index import Group


class LinearHead(nn.Linear):
    """A linear classifier with PyTorch's default initialisation, U(-1/sqrt(D), 1/sqrt(D)).

    Args:
        num_features: Features per stream, D.
        num_classes: Number of classes, C.
        bias: Whether the head has a bias (C,).
    """

    def __init__(self, num_features: int, num_classes: int, bias: bool = True) -> None:
        super().__init__(num_features, num_classes, bias=bias)


def linear_logits(features: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Map features (B, S, D) to logits (B, S, C).

    Args:
        features: (B, S, D).
        weight: Class vectors (C, D) for all streams, or (S, C, D) with one set per stream.
        bias: (C,) or (S, C).
    """
    if weight.ndim == 2:
        return F.linear(features, weight, bias)
    logits = torch.einsum("bsd,scd->bsc", features, weight)
    return logits if bias is None else logits + bias


class CosineHead(nn.Module):
    """A cosine classifier without bias: ``scale * cos(features, class vector)``.

    The class vectors start uniform on (-1, 1), scaled to unit norm (the NormedLinear of
    LDAM-DRW, Cao et al., NeurIPS 2019, https://arxiv.org/abs/1906.07413).

    Args:
        num_features: Features per stream, D.
        num_classes: Number of classes, C.
        scale: Largest absolute logit, above 0.
        num_streams: None for one classifier that all streams share; S for one classifier per
            stream, with weights (S, C, D).
    """

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        scale: float = 30.0,
        num_streams: int | None = None,
    ) -> None:
        super().__init__()
        if not (scale > 0 and math.isfinite(scale)):
            raise FedltError(f"cosine head: scale must be finite and above 0, got {scale}")
        self.in_features, self.out_features, self.scale = num_features, num_classes, scale
        sets = () if num_streams is None else (num_streams,)
        start = torch.empty(*sets, num_classes, num_features).uniform_(-1, 1)
        self.weight = nn.Parameter(F.normalize(start, dim=-1))

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, S, D) to logits (B, S, C)."""
        classes = F.normalize(self.weight, dim=-1)
        return self.scale * linear_logits(F.normalize(features, dim=-1), classes)


class StreamHead(nn.Module):
    """One linear classifier per stream, each initialised as :class:`LinearHead` is.

    Args:
        num_streams: Streams S.
        num_features: Features per stream, D.
        num_classes: Number of classes, C.
    """

    def __init__(self, num_streams: int, num_features: int, num_classes: int) -> None:
        super().__init__()
        self.in_features, self.out_features = num_features, num_classes
        bound = 1 / math.sqrt(num_features)
        drawn = torch.empty(num_streams, num_classes, num_features + 1).uniform_(-bound, bound)
        self.weight = nn.Parameter(drawn[..., :-1].contiguous())  # (S, C, D)
        self.bias = nn.Parameter(drawn[..., -1].contiguous())  # (S, C)

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, S, D) to logits (B, S, C)."""
        return linear_logits(features, self.weight, self.bias)


class FixedHead(nn.Module):
    """A linear or cosine classifier that is never trained: its weight and bias are buffers.

    Args:
        weight: Class vectors (C, D); copied.
        bias: Biases (C,), or ``None`` for no bias; copied.
        scale: ``None`` for a linear head; a number for a cosine head, whose logits are
            ``scale * cos(features, class vector)`` plus the bias.

    Raises:
        FedltError: If a shape does not fit, or the scale is not above 0.
    """

    default_group: Group = "fixed"
    weight: Tensor
    bias: Tensor | None

    def __init__(
        self, weight: Tensor, bias: Tensor | None = None, *, scale: float | None = None
    ) -> None:
        super().__init__()
        self.scale = scale
        if weight.ndim != 2 or (bias is not None and bias.shape != weight.shape[:1]):
            shapes = [tuple(t.shape) for t in (weight, bias) if t is not None]
            raise FedltError(f"fixed head: needs weight (C, D) and bias (C,), got {shapes}")
        if scale is not None and scale <= 0:
            raise FedltError(f"fixed head: scale must be above 0, got {scale}")
        self.out_features, self.in_features = weight.shape
        self.register_buffer("weight", weight.detach().clone())
        self.register_buffer("bias", None if bias is None else bias.detach().clone())

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, S, D) to logits (B, S, C)."""
        if self.scale is None:
            return F.linear(features, self.weight, self.bias)
        classes = F.normalize(self.weight, dim=-1)
        cosines = F.linear(F.normalize(features, dim=-1), classes)
        return self.scale * cosines if self.bias is None else self.scale * cosines + self.bias
