"""Features of a frozen backbone, computed once for every image: ``model.cache_features``.

The clients' images then are the features, (N, S * D, 1, 1), and so are the test images;
:meth:`fedlt.models.Model.features` passes features on. The features of test images are computed in
the blocks of an evaluation, and have the same bits as without the cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.modules.batchnorm import _BatchNorm

from fedlt.client import ClientPlugin
from fedlt.config import Config
from fedlt.data.arrays import Images
from fedlt.data.augment import normalize
from fedlt.errors import FedltError
from fedlt.federation.observer import Observer
from fedlt.federation.share import ClientShares
from fedlt.machine.devices import find_device
from fedlt.models import Model


def cache_features(shares: ClientShares, observer: Observer) -> tuple[ClientShares, Observer]:
    """Return the parties of clients and observer with features instead of images.

    Raises:
        FedltError: If the features of an image are not the same in every batch of the run, with
            the reason.
    """
    check_settings(observer.config)
    model = observer.build_model()
    _check(observer, model)
    if shares.material:
        raise FedltError(
            f"model.cache_features: client {observer.config.client.label!r} brings images of its "
            "own, which have no features in the cache"
        )
    model.reads_features = False
    model = model.to(find_device(observer.config.engine.device)).eval()
    data = observer.data
    features = [
        _features(model, observer, images) for images in (data.train_images, data.eval_images)
    ]
    size = features[0].shape[1]
    scale = {"mean": (0.0,) * size, "std": (1.0,) * size}
    train = replace(shares, images=features[0], **scale)
    return train, replace(observer, eval_features=features[1])


def check_settings(config: Config) -> None:
    """Raise if a setting of a file with ``model.cache_features`` lets features change."""
    local = config.local
    reasons = {
        f"local.augment must be none, not {local.augment}": local.augment != "none",
        f"local.precision must be float32, not {local.precision}": local.precision != "float32",
    }
    _refuse(reasons if config.model.cache_features else {})


def _refuse(reasons: Mapping[str, object]) -> None:
    for reason, holds in reasons.items():
        if holds:
            raise FedltError(f"model.cache_features: {reason}")


def _check(observer: Observer, model: Model) -> None:
    config = observer.config
    moving = [
        n for n in model.names() if n.startswith("backbone.") and model.group_of(n) != "fixed"
    ]
    reasons = {
        "data that are features already need no cache": observer.image_shape[1:] == (1, 1),
        f"model.freeze must be all; {moving[0] if moving else ''} is not frozen": moving,
        "a BatchNorm of the backbone has no running statistics: its features depend on the batch": (
            any(isinstance(m, _BatchNorm) and m.running_mean is None for m in model.modules())
        ),
        f"client {config.client.label!r} shows its network views of the images, which have no "
        "features in the cache": _has_views(observer),
        f"client {config.client.label!r} has a network of its own, which reads images": (
            len(model.networks) > 0
        ),
    }
    _refuse(reasons)


def _has_views(observer: Observer) -> bool:
    return any(type(part).views is not ClientPlugin.views for part in observer.plugin.parts)


@torch.no_grad()
def _features(model: Model, observer: Observer, images: Images) -> NDArray[np.float32]:
    """Return the features (N, S * D, 1, 1) of images (N, Ch, H, W)."""
    device = next(model.parameters()).device
    mean, std = (torch.tensor(v, device=device) for v in (observer.data.mean, observer.data.std))
    size = model.num_streams * model.num_features
    found = np.empty((len(images), size, 1, 1), dtype=np.float32)
    block = observer.config.evaluate.batch_size
    for start in range(0, len(images), block):
        pixels = torch.from_numpy(np.array(images[start : start + block])).to(device)
        features = model.features(normalize(pixels, mean, std))  # (B, S, D)
        found[start : start + block] = features.flatten(1)[:, :, None, None].cpu().numpy()
    found.flags.writeable = False
    return found
