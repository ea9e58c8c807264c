"""Features of a model computed with other weights, without gradients."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.func import functional_call

from fedlt.models.model import Model
from fedlt.models.modes import evaluating


def frozen_features(model: Model, tensors: Mapping[str, Tensor], images: Tensor) -> Tensor:
    """Return the features (B, S, D) that a model's backbone gives with other weights.

    The backbone is in evaluation mode and needs no gradient.

    Args:
        model: Model whose architecture is used; it gives the values that ``tensors`` lack.
        tensors: Parameters and buffers by the model's names.
        images: (B, Ch, H, W).
    """
    if model.are_features(images):
        return model.features(images)
    backbone, prefix = model.backbone, "backbone."
    known = {f"{prefix}{name}" for name in backbone.state_dict()}
    given = {n.removeprefix(prefix): value for n, value in tensors.items() if n in known}
    with evaluating(backbone), torch.no_grad():
        features: Tensor = functional_call(backbone, given, (images,))
    return features
