"""Networks of timm and torchvision as backbones: ``timm:resnet18``, ``torchvision:resnet50``.

A network gives pooled features: its classifier is taken off. Its weights are new; ``model.weights``
loads weights from a file. Nothing is downloaded.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from typing import Any, Final

from torch import nn

from fedlt.errors import FedltError, one_line
from fedlt.models.layers import group_count
from fedlt.models.streams import ImageShape, as_backbone

_DOWNLOADS: Final = ("pretrained", "pretrained_cfg", "weights", "weights_backbone")
_OURS: Final = ("num_classes", "in_chans", "progress")  # arguments that fedlt gives


def library_backbone(
    name: str,
    image_shape: ImageShape,
    *,
    width: int | None,
    norm: str,
    options: Mapping[str, Any],
) -> nn.Module:
    """Return a network of timm or torchvision without its classifier.

    Args:
        name: ``timm:NAME`` or ``torchvision:NAME``.
        image_shape: (Ch, H, W) of the images.
        width: ``model.width``, which must be None.
        norm: ``batch``: the network's own layers; ``group``: every BatchNorm becomes a GroupNorm.
        options: Further arguments of the library's function.

    Raises:
        FedltError: If the library is not installed, has no such network, would download weights,
            or the network does not take such images or options.
    """
    check_library(name, width=width, norm=norm, options=options)
    library, _, network = name.partition(":")
    built = _MAKERS[library](network, name, image_shape, dict(options))
    if norm == "group":
        _use_groups(built, name)
    return as_backbone(built, image_shape, name=name, knows_sizes=False)


def check_library(name: str, *, width: int | None, norm: str, options: Mapping[str, Any]) -> None:
    """Raise for the mistakes of :func:`library_backbone` that need no images to be found."""
    if width is not None:
        raise FedltError(f"model.width: {name} has the width of its name; see model.options")
    for key in options:
        if key in _DOWNLOADS:
            raise FedltError(
                f"model.options: {key} would download weights, which fedlt never does; "
                "model.weights takes a file"
            )
        if key in _OURS:
            raise FedltError(f"model.options: {key} follows from the data")
    if norm not in ("batch", "group"):
        raise FedltError(f"model.norm: {name} takes batch (its own layers) or group, not {norm}")
    library, _, network = name.partition(":")
    if library == "timm":
        _check_name(network.partition(".")[0], name, _timm(name).list_models())
    else:
        models = import_module("torchvision.models")
        _check_name(network, name, models.list_models(module=models))


def _timm(name: str) -> Any:  # noqa: ANN401 (a module)
    try:
        return import_module("timm")
    except ImportError as error:
        raise FedltError(
            f"model.name: {name} needs timm ({error}): pip install 'fedlt[timm]'"
        ) from error


def _from_timm(
    network: str, name: str, image_shape: ImageShape, options: dict[str, Any]
) -> nn.Module:
    timm = _timm(name)
    settings = timm.get_pretrained_cfg(network, allow_unregistered=True)
    if settings is not None and settings.fixed_input_size:
        options.setdefault("img_size", image_shape[1:])
    return _made(
        name,
        lambda: timm.create_model(
            network, pretrained=False, num_classes=0, in_chans=image_shape[0], **options
        ),
    )


def _from_torchvision(
    network: str, name: str, image_shape: ImageShape, options: dict[str, Any]
) -> nn.Module:
    models = import_module("torchvision.models")
    if network in ("googlenet", "inception_v3"):
        options = {"aux_logits": False, "init_weights": True, **options}
    built = _made(name, lambda: models.get_model(network, weights=None, **options))
    _take_off_classifier(built, name)
    if image_shape[0] != 3:
        _change_channels(built, image_shape[0])
    return built


_MAKERS: Final[dict[str, Callable[..., nn.Module]]] = {
    "timm": _from_timm,
    "torchvision": _from_torchvision,
}


def _check_name(network: str, name: str, known: Collection[str]) -> None:
    if network in known:
        return
    close = difflib.get_close_matches(network, known, n=3, cutoff=0.5)
    hint = f"; nearest: {', '.join(map(repr, close))}" if close else ""
    library = name.partition(":")[0]
    raise FedltError(
        f"model.name: {library} has no network {network!r} of its {len(known)} classifiers{hint}"
    )


def _made(name: str, make: Callable[[], nn.Module]) -> nn.Module:
    try:
        return make()
    except Exception as error:
        raise FedltError(f"model.name: {name} cannot be made: {one_line(error)}") from error


def _take_off_classifier(network: nn.Module, name: str) -> None:
    """Replace the last linear layer by a module that changes nothing."""
    last = [path for path, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not last:
        raise FedltError(f"model.name: {name} has no linear classifier to take off")
    network.set_submodule(last[-1], nn.Identity())


def _change_channels(network: nn.Module, channels: int) -> None:
    """Give the first convolution another number of input channels, and new weights."""
    for path, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            first = nn.Conv2d(
                channels,
                module.out_channels,
                module.kernel_size,  # type: ignore[arg-type]
                module.stride,  # type: ignore[arg-type]
                module.padding,  # type: ignore[arg-type]
                bias=module.bias is not None,
            )
            network.set_submodule(path, first)
            return


def _use_groups(network: nn.Module, name: str) -> None:
    """Replace every BatchNorm by a GroupNorm of the same channels."""
    for path, module in [*network.named_modules()]:
        if type(module) is nn.BatchNorm2d:
            channels = module.num_features
            network.set_submodule(path, nn.GroupNorm(group_count(channels), channels))
        elif isinstance(module, nn.modules.batchnorm._BatchNorm):
            kind = type(module).__name__
            raise FedltError(
                f"model.norm: {name} has {kind} layers, which are no plain BatchNorm: group is "
                "not for it; see model.options"
            )
