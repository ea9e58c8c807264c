"""Checks that the images of a data set allow the image operations that a file asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedlt.errors import FedltError

if TYPE_CHECKING:
    from fedlt.client import ClientPlugin
    from fedlt.config import Config
    from fedlt.data import FederatedData


def check_images(config: Config, plugin: ClientPlugin, data: FederatedData) -> None:
    """Refuse operations on images for a data set of feature vectors.

    Raises:
        FedltError: If images would be augmented, or the plugin makes views of images.
    """
    if not data.is_features:
        return
    what = f"is for images, and {data.name!r} holds feature vectors"
    if config.local.augment != "none":
        raise FedltError(f"local.augment: {config.local.augment} {what}; set local.augment=none")
    if plugin.traits.views_images:
        raise FedltError(f"client {config.client.label!r} {what}, of which there are no views")
