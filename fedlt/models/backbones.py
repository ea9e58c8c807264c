"""Backbones that a configuration file can name, and the function that builds them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from torch import nn

from fedlt.config.loading import LIBRARIES, check_spec, is_spec
from fedlt.errors import FedltError, nearest
from fedlt.models.cnn import Cnn
from fedlt.models.fedavg_cnn import FedAvgCnn
from fedlt.models.given_features import GivenFeatures
from fedlt.models.layers import NORMS
from fedlt.models.libraries import check_library, library_backbone
from fedlt.models.mlp import Mlp
from fedlt.models.resnet import BasicBlock, Bottleneck, ResNet
from fedlt.models.streams import ImageShape
from fedlt.models.users_backbone import users_backbone


@dataclass(frozen=True)
class BackboneSpec:
    """Maker and limits of a named backbone."""

    make: Callable[[ImageShape, int, str, int], nn.Module]  # (image_shape, width, norm, depth)
    width: int  # channels of the first stage in the published network; an MLP's hidden units
    min_size: int  # smallest height and width that the backbone takes, pixels
    summary: str  # one line for ``fedlt list models``
    norms: tuple[str, ...] = ("batch", "group")  # values of ``model.norm`` that it takes
    takes_depth: bool = False  # ``model.depth`` may be above 1
    takes_width: bool = True


def _resnet(depths: tuple[int, ...], width: int, summary: str) -> BackboneSpec:
    projects = len(depths) == 4

    def make(image_shape: ImageShape, width: int, norm: str, depth: int) -> nn.Module:
        return ResNet(image_shape[0], depths, width=width, norm=norm, projects=projects)

    return BackboneSpec(make, width, 2 ** (len(depths) - 1), summary)


def _imagenet(
    block: type[BasicBlock | Bottleneck], depths: tuple[int, ...], summary: str
) -> BackboneSpec:
    def make(image_shape: ImageShape, width: int, norm: str, depth: int) -> nn.Module:
        channels = image_shape[0]
        return ResNet(
            channels, depths, width=width, norm=norm, projects=True, block=block, stem="7x7"
        )

    return BackboneSpec(make, 64, 8, summary)


def _cnn(image_shape: ImageShape, width: int, norm: str, depth: int) -> nn.Module:
    return Cnn(image_shape[0], width=width, norm=norm)


def _fedavg_cnn(image_shape: ImageShape, width: int, norm: str, depth: int) -> nn.Module:
    return FedAvgCnn(image_shape, width=width, norm=norm)


def _mlp(image_shape: ImageShape, width: int, norm: str, depth: int) -> nn.Module:
    return Mlp(image_shape, width=width, norm=norm, depth=depth)


def _identity(image_shape: ImageShape, width: int, norm: str, depth: int) -> nn.Module:
    return GivenFeatures(image_shape)


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
    "resnet10": _imagenet(
        BasicBlock, (1, 1, 1, 1), "ResNet-10, 7x7 stem, D = 8 * width: ImageNet-LT"
    ),
    "resnet50": _imagenet(Bottleneck, (3, 4, 6, 3), "ResNet-50, 7x7 stem, D = 32 * width"),
    "identity": BackboneSpec(
        _identity, 1, 1, "no network: the data are features", ("batch", "none"), takes_width=False
    ),
}


def build_backbone(
    name: str,
    *,
    image_shape: ImageShape,
    width: int | None = None,
    norm: str = "batch",
    depth: int = 1,
    options: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Return a backbone, initialised from torch's global generator.

    Args:
        name: A key of ``BACKBONES``; ``timm:NAME`` or ``torchvision:NAME``; or ``file.py:Name`` /
            ``module:Name`` of a callable (:mod:`fedlt.models.users_backbone`).
        image_shape: (Ch, H, W) of the images; (d, 1, 1) of features.
        width: Channels of the first stage; ``None`` for the published network's width.
        norm: ``batch`` or ``group``; ``none`` for the networks that take it.
        depth: Hidden layers of ``mlp``; 1 for every other network.
        options: Further arguments of a library's or a user's callable.

    Returns:
        A module ``(B, Ch, H, W) -> (B, S, D)``.

    Raises:
        FedltError: If a name is unknown, or a value does not fit the network.
    """
    given = dict(options or {})
    check_backbone(name, width=width, norm=norm, depth=depth, options=given)
    if is_spec(name):
        return users_backbone(name, image_shape, width=width, norm=norm, options=given)
    if ":" in name:
        return library_backbone(name, image_shape, width=width, norm=norm, options=given)
    return _built_in(name, image_shape, width, norm, depth)


def check_backbone(
    name: str, *, width: int | None, norm: str, depth: int, options: Mapping[str, Any]
) -> None:
    """Raise for the mistakes of :func:`build_backbone` that need no images to be found.

    User code is not executed.

    Raises:
        FedltError: If a name is unknown, or a value does not fit the network.
    """
    is_foreign = is_spec(name) or name.partition(":")[0] in LIBRARIES
    if is_foreign and depth != 1:
        raise FedltError(f"model.depth: is for mlp; {name!r} may have options instead")
    if is_spec(name):
        check_spec(name, "model.name")
    elif is_foreign and ":" in name:
        check_library(name, width=width, norm=norm, options=options)
    elif name not in BACKBONES:
        raise FedltError(f"model.name: unknown backbone {name!r}{nearest(name, BACKBONES)}")
    else:
        _check_built_in(name, width, norm, depth, options)


def _check_built_in(
    name: str, width: int | None, norm: str, depth: int, options: Mapping[str, Any]
) -> None:
    spec = BACKBONES[name]
    for key in options:
        raise FedltError(f"model.options: {key!r} is no option of {name}, which has none")
    if norm not in spec.norms:
        raise FedltError(f"model.norm: {name} takes no norm {norm!r}{nearest(norm, spec.norms)}")
    if width is not None and not spec.takes_width:
        raise FedltError(f"model.width: {name} has no layers")
    if depth != 1 and not spec.takes_depth:
        deep = ", ".join(other for other, one in BACKBONES.items() if one.takes_depth)
        raise FedltError(f"model.depth: is for {deep}, {name} has the depth of its name")


def _built_in(
    name: str, image_shape: ImageShape, width: int | None, norm: str, depth: int
) -> nn.Module:
    """Return a backbone of the table."""
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
    return spec.make(image_shape, chosen, norm, depth)
