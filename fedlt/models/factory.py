"""Models built from a backbone's name, with weights that depend on the seed only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedlt.models.backbones import build_backbone
from fedlt.models.model import Model
from fedlt.rng import seed_torch


def build_model(
    name: str,
    *,
    image_shape: tuple[int, int, int],
    num_classes: int,
    width: int | None = None,
    norm: str = "batch",
    depth: int = 1,
    options: Mapping[str, Any] | None = None,
    seed: int,
) -> Model:
    """Return a model without heads; the client plugin and the strategy add heads afterwards.

    Torch's global generator is seeded by ``(seed, "model")`` and not restored, so heads built
    right after this call depend on the seed as well.

    Args:
        name: Backbone name, see ``fedlt.models.backbones.BACKBONES``.
        image_shape: (Ch, H, W) of the images; (d, 1, 1) of features.
        num_classes: Number of classes C.
        width: Channels of the first stage; ``None`` for the published network's width.
        norm: ``batch`` or ``group``; ``none`` for the networks that take it.
        depth: Hidden layers of ``mlp``; 1 for every other network.
        options: Further arguments of a library's or a user's callable.
        seed: The run's seed.

    Raises:
        FedltError: If a name is unknown or a size does not fit.
    """
    seed_torch(seed, "model")
    backbone = build_backbone(
        name, image_shape=image_shape, width=width, norm=norm, depth=depth, options=options
    )
    return Model(backbone, num_classes, image_shape=image_shape)
