"""A backbone made by a user's function or class: which arguments it gets."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from fedlt.config.loading import load_users_object
from fedlt.config.raised import users_code
from fedlt.errors import FedltError, nearest, shortened
from fedlt.models.streams import ImageShape, as_backbone

_GIVEN = ("image_shape", "in_channels", "image_size", "width", "norm")  # what fedlt may pass
_OLD = ("in_channels", "image_size", "width", "norm")  # what ``**anything`` gets


def users_backbone(
    name: str,
    image_shape: ImageShape,
    *,
    width: int | None,
    norm: str,
    options: Mapping[str, Any],
) -> nn.Module:
    """Return the backbone of ``file.py:Name`` or ``module:Name``.

    The callable gets those of ``image_shape``, ``in_channels``, ``image_size`` (the side of square
    images), ``width`` and ``norm`` that it has parameters for, and the options. Without
    ``model.width`` in the file, a ``width`` with a default keeps its default.

    Args:
        name: The callable.
        image_shape: (Ch, H, W) of the images.
        width: ``model.width``; None where the file does not give it.
        norm: ``model.norm``.
        options: ``model.options``.

    Raises:
        FedltError: If the callable cannot be loaded, fails, or does not make a backbone.
    """
    make = load_users_object(name, "model.name")
    if not callable(make):
        raise FedltError(f"model.name: {name!r} is no function or class")
    channels, height, wide = image_shape
    offered = {
        "image_shape": image_shape,
        "in_channels": channels,
        "image_size": height,
        "width": width,
        "norm": norm,
    }
    taken, is_open = _parameters(make)
    if width is None and not _requires(make, "width"):
        del offered["width"]
    wanted = {key for key in offered if key in taken or (is_open and key in _OLD)}
    if "image_size" in wanted and "image_shape" not in wanted and height != wide:
        raise FedltError(
            f"model.name: {name!r} takes image_size, the side of square images, and the images are "
            f"{height} x {wide}; give it a parameter image_shape, which is (Ch, H, W)"
        )
    for key in options:
        if key in _GIVEN or not (is_open or key in taken):
            known = nearest(key, [one for one in taken if one not in _GIVEN])
            raise FedltError(f"model.options: {name!r} has no option {key!r}{known}")
    arguments = {key: value for key, value in offered.items() if key in wanted} | {**options}
    told = ", ".join(f"{key}={shortened(repr(value))}" for key, value in arguments.items())
    with users_code(f"model.name: {name!r} fails, called with ({told})"):
        built = make(**arguments)
    return as_backbone(built, image_shape, name=name)


def _requires(make: Callable[..., object], name: str) -> bool:
    """Return True if a callable has a parameter of that name without a default."""
    try:
        found = inspect.signature(make).parameters.get(name)
    except (TypeError, ValueError):
        return False
    return found is not None and found.default is found.empty


def _parameters(make: Callable[..., object]) -> tuple[tuple[str, ...], bool]:
    """Return the names of a callable's parameters, and whether it takes any others."""
    try:
        parameters = inspect.signature(make).parameters
    except (TypeError, ValueError):
        return (), True
    kinds = inspect.Parameter
    named = [
        n
        for n, p in parameters.items()
        if p.kind in (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY)
    ]
    return tuple(named), any(p.kind == kinds.VAR_KEYWORD for p in parameters.values())
