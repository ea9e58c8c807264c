"""Gradient matching of CReFF: synthetic features that give a head the gradients of real features.

Shang et al., Federated learning on heterogeneous and long-tailed data via classifier re-training
with federated features, IJCAI 2022, https://arxiv.org/abs/2204.13399.

The gradient of the cross-entropy with respect to a linear head is written out. For a feature f with
softmax p and one-hot class y, the gradient is ``(p - y) f^T`` for the weight and ``p - y`` for the
bias. One tensor (C, D + 1) holds both, the bias as the last column.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from fedlt.data.augment import augment as augment_images
from fedlt.data.augment import normalize
from fedlt.models.frozen import frozen_features

if TYPE_CHECKING:
    from fedlt.models.model import Model
    from fedlt.optim.batch import ClientData


def class_gradients(features: Tensor, weight: Tensor, bias: Tensor, labels: Tensor) -> Tensor:
    """Return a linear head's gradient of the mean cross-entropy, for each group of features.

    Args:
        features: (G, m, D): m features in each of G groups.
        weight: Class vectors (C, D) of the head.
        bias: (C,).
        labels: (G,) int64: the class that all features of a group have.

    Returns:
        (G, C, D + 1).
    """
    error = F.linear(features, weight, bias).softmax(dim=-1)  # (G, m, C)
    error = error - F.one_hot(labels, len(bias))[:, None]
    slopes = error.transpose(1, 2) @ features  # (G, C, D)
    both = torch.cat([slopes, error.sum(1)[:, :, None]], dim=2)
    return both / features.shape[1]


def client_gradients(
    model: Model,
    data: ClientData,
    tensors: Mapping[str, Tensor],
    weight: Tensor,
    bias: Tensor,
    *,
    augment: str,
    batches: int,
    batch_size: int,
    generator: torch.Generator,
) -> Tensor:
    """Return a linear head's gradient on each of a client's classes, in evaluation mode.

    Args:
        model: Model whose architecture is used; it gives the values that ``tensors`` lack.
        data: The client's images.
        tensors: Weights to compute the features with, by the model's names.
        weight: Class vectors (C, D) of the head.
        bias: (C,).
        augment: Name of the augmentation, as in ``local.augment`` of the configuration file.
        batches: Random batches per class, whose gradients are averaged. A class that fits into
            one batch has a single batch if images are not augmented.
        batch_size: Images per batch; a smaller class has smaller batches.
        generator: CPU generator of the batches and the augmentation.

    Returns:
        (C, C, D + 1); zero for classes that the client does not hold.
    """
    classes, size = weight.shape
    gradients = weight.new_zeros(classes, classes, size + 1)
    indices = data.indices.to(data.images.device)
    for label in data.class_counts.nonzero().flatten():
        own = indices[data.labels[indices] == label]
        alike = augment == "none" and len(own) <= batch_size
        drawn = [
            torch.randperm(len(own), generator=generator)[:batch_size]
            for _ in range(1 if alike else batches)
        ]
        images = data.images[own[torch.cat(drawn).to(own.device)]]
        pixels = normalize(augment_images(images, augment, generator), data.mean, data.std)
        features = frozen_features(model, tensors, pixels).flatten(0, 1)  # (B S, D)
        gradients[label] = class_gradients(features[None], weight, bias, label[None])[0]
    return gradients


def matching_loss(found: Tensor, wanted: Tensor) -> Tensor:
    """Return the distance of two sets of gradients: 1 - cos, summed over groups and rows.

    The rows of a group are the weight gradient of each of the C classes, and the bias gradient.

    Args:
        found: Gradients (G, C, D + 1) of the synthetic features.
        wanted: Gradients (G, C, D + 1) to match.
    """
    rows = F.cosine_similarity(found[..., :-1], wanted[..., :-1], dim=-1)  # (G, C)
    biases = F.cosine_similarity(found[..., -1], wanted[..., -1], dim=-1)  # (G,)
    return (1 - rows).sum() + (1 - biases).sum()


def match_features(
    features: Tensor,
    wanted: Tensor,
    held: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    steps: int,
    lr: float,
) -> Tensor:
    """Return features moved by gradient descent on :func:`matching_loss`.

    Args:
        features: (C, m, D): m synthetic features of each class; not written.
        wanted: (C, C, D + 1): the gradient to match, for each class.
        held: (C,) bool: classes with a gradient to match; other features stay as they are.
        weight: Class vectors (C, D) of the head.
        bias: (C,).
        steps: Steps of plain gradient descent.
        lr: Step size.

    Returns:
        Features (C, m, D).
    """
    labels = held.nonzero().flatten()
    own = features[labels].clone()  # (G, m, D)
    for _ in range(steps):
        own.requires_grad_()
        loss = matching_loss(class_gradients(own, weight, bias, labels), wanted[labels])
        (slope,) = torch.autograd.grad(loss, own)
        own = own.detach() - lr * slope
    moved = features.clone()
    moved[labels] = own.detach()
    return moved
