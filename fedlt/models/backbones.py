"""Backbones that a configuration file can name, and the function that builds them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from torch import nn

from fedlt.config.loading import is_spec, load_users_object
from fedlt.config.raised import users_code
from fedlt.errors import FedltError, nearest
from fedlt.models.cnn import Cnn
from fedlt.models.fedavg_cnn import FedAvgCnn
from fedlt.models.layers import NORMS
from fedlt.models.mlp import Mlp
from fedlt.models.resnet import ResNet

ImageShape = tuple[int, int, int]  # (Ch, H, W)


@dataclass(frozen=True)
class BackboneSpec:
    """Maker and limits of a named backbone."""

    make: Callable[[ImageShape, int, str, int], nn.Module]  # image_shape, width, norm, depth
    width: int  # channels of the first stage in the published network; an MLP's hidden units
    min_size: int  # smallest height and width that the backbone takes, pixels
    summary: str  # one line for ``fedlt list models``
    norms: tuple[str, ...] = ("batch", "group")  # values of ``model.norm`` that it takes
    takes_depth: bool = False  # ``model.depth`` may be above 1


def _resnet(depths: tuple[int, ...], width: int, summary: str) -> BackboneSpec:
    projects = len(depths) == 4

    def make(image_shape: ImageShape, width: int, norm: str, depth: int) -> nn.Module:
        return ResNet(image_shape[0], depths, width=width, norm=norm, projects=projects)

    return BackboneSpec(make, width, 2 ** (len(depths) - 1), summary)


def _cnn(image_shape: ImageShape, width: int, norm: str, depth: int) -> nn.Module:
    return Cnn(image_shape[0], width=width, norm=norm)


def _fedavg_cnn(image_shape: ImageShape, width: int, norm: str, depth: int) -> nn.Module:
    return FedAvgCnn(image_shape, width=width, norm=norm)


def _mlp(image_shape: ImageShape, width: int, norm: str, depth: int) -> nn.Module:
    return Mlp(image_shape, width=width, norm=norm, depth=depth)


BACKBONES: Final[dict[str, BackboneSpec]] = {
    "cnn": BackboneSpec(_cnn, 16, 4, "3 convolutions, D = 4 * width: for CPUs"),
    "fedavg_cnn": BackboneSpec(
        _fedavg_cnn, 32, 4, "FedAvg's CNN: 5x5 convolutions of 32 and 64, D = 512, no norm", NORMS
    ),
    "mlp": BackboneSpec(
        _mlp, 200, 1, "depth hidden layers (1), D = width: for tiny images", NORMS, takes_depth=True
    ),
    "resnet8": _resnet((1, 1, 1), 16, "CIFAR ResNet-8, D = 4 * width"),
    "resnet20": _resnet((3, 3, 3), 16, "CIFAR ResNet-20, D = 4 * width, 0.27 M parameters"),
    "resnet32": _resnet((5, 5, 5), 16, "CIFAR ResNet-32, D = 4 * width, 0.46 M parameters"),
    "resnet18": _resnet((2, 2, 2, 2), 64, "ResNet-18, 3x3 stem, D = 8 * width, 11.2 M parameters"),
    "resnet34": _resnet((3, 4, 6, 3), 64, "ResNet-34, 3x3 stem, D = 8 * width, 21.3 M parameters"),
}


def build_backbone(
    name: str,
    *,
    image_shape: ImageShape,
    width: int | None = None,
    norm: str = "batch",
    depth: int = 1,
) -> nn.Module:
    """Return a backbone, initialised from torch's global generator.

    Args:
        name: A key of ``BACKBONES``, or ``file.py:Name`` / ``module:Name`` of a callable that
            takes the same keywords and returns a module with ``num_features``, ``num_streams``. A
            callable may take ``in_channels`` and ``image_size`` (the side of a square image)
            instead of ``image_shape``.
        image_shape: (Ch, H, W) of the images; (d, 1, 1) of features.
        width: Channels of the first stage; ``None`` for the published network's width.
        norm: ``batch`` or ``group``; ``none`` for the networks that take it.
        depth: Hidden layers of ``mlp``; 1 for every other network.

    Returns:
        A module ``(B, Ch, H, W) -> (B, S, D)``.

    Raises:
        FedltError: If the name or norm is unknown, or a size is too small.
    """
    if is_spec(name):
        return _users_backbone(name, image_shape, width=width, norm=norm)
    if name not in BACKBONES:
        raise FedltError(f"model.name: unknown backbone {name!r}{nearest(name, BACKBONES)}")
    spec = BACKBONES[name]
    chosen = spec.width if width is None else width
    channels, height, wide = image_shape
    if chosen < 1 or channels < 1:
        raise FedltError(f"model: width {chosen} and channels {channels} must be at least 1")
    if min(height, wide) < spec.min_size:
        raise FedltError(
            f"model.name: {name} needs images of at least {spec.min_size} pixels a side, "
            f"got {height} x {wide}"
        )
    if norm not in spec.norms:
        raise FedltError(f"model.norm: {name} takes no norm {norm!r}{nearest(norm, spec.norms)}")
    if depth != 1 and not spec.takes_depth:
        deep = ", ".join(other for other, one in BACKBONES.items() if one.takes_depth)
        raise FedltError(f"model.depth: is for {deep}, {name} has the depth of its name")
    return spec.make(image_shape, chosen, norm, depth)


def _users_backbone(
    name: str, image_shape: ImageShape, *, width: int | None, norm: str
) -> nn.Module:
    """Return a backbone made by a user's callable."""
    make = load_users_object(name, "model.name")
    channels, height, wide = image_shape
    sizes: dict[str, object] = {"image_shape": image_shape}
    if "image_shape" not in _parameters(make):
        if height != wide:
            raise FedltError(
                f"model.name: {name!r} takes the side of square images, and the images are "
                f"{height} x {wide}; give it a parameter image_shape, which is (Ch, H, W)"
            )
        sizes = {"in_channels": channels, "image_size": height}
    with users_code(f"model.name: {name!r} fails"):
        built: nn.Module = make(**sizes, width=width, norm=norm)
    return built


def _parameters(make: Callable[..., object]) -> tuple[str, ...]:
    """Return the names of a callable's parameters; () if it does not tell them."""
    try:
        return tuple(inspect.signature(make).parameters)
    except (TypeError, ValueError):
        return ()
