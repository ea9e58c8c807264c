"""Head of FedETF: a projection of features to C dimensions, and a simplex frame of C vectors there.

Li et al., No fear of classifier biases: neural collapse inspired federated learning with synthetic
and fixed classifier, ICCV 2023, https://arxiv.org/abs/2303.10058. The frame lies in C dimensions,
so a backbone may have any number of features, also fewer than classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from fedlt.data.batches import batch_slices
from fedlt.losses import cross_entropy
from fedlt.models.etf import dense_etf
from fedlt.optim.sgd import clipped, descend


class EtfHead(nn.Module):
    """Head with fixed class vectors: logits ``scale * <normalised projection, class vector>``.

    Args:
        num_features: Features per stream, D.
        num_classes: Number of classes, C.
        generator: Source of the frame's random orientation.
        scale: Initial value of the learnable scale.
    """

    classes: Tensor  # (C, C), one row per class

    def __init__(
        self, num_features: int, num_classes: int, generator: torch.Generator, scale: float = 1.0
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = num_features, num_classes
        self.projection = nn.Linear(num_features, num_classes)
        self.scale = nn.Parameter(torch.tensor(scale))
        self.register_buffer("classes", dense_etf(num_classes, num_classes, generator))

    def forward(self, features: Tensor, classes: Tensor | None = None) -> Tensor:
        """Map features (B, S, D) to logits (B, S, C); ``classes`` (C, C) replaces the frame."""
        directions = F.normalize(self.projection(features), dim=-1)
        return self.scale * F.linear(directions, self.classes if classes is None else classes)


def descend_on(
    trained: list[Tensor],
    head: EtfHead,
    classes: Tensor,
    features: Tensor,
    labels: Tensor,
    *,
    lr: float,
    momentum: float,
    weight_decay: float,
    batch_size: int,
    epochs: int,
    generator: torch.Generator,
    nesterov: bool = False,
    clip: float | None = None,
) -> int:
    """Train some tensors of a head in place by cross-entropy on given features, with SGD.

    Args:
        trained: Tensors to train: ``classes`` itself, or parameters of ``head``.
        head: The head.
        classes: Class vectors (C, C) that the head uses.
        features: (N, D).
        labels: (N,) int64.
        lr: Learning rate.
        momentum: Momentum; its buffers start at zero.
        weight_decay: Weight decay of the trained tensors.
        batch_size: Rows per step.
        epochs: Passes over the rows.
        generator: CPU generator of the order of the rows.
        nesterov: Nesterov's momentum.
        clip: Longest gradient over the trained tensors; None: any.

    Returns:
        Number of steps.
    """
    steps = 0
    buffers: list[Tensor | None] = [None for _ in trained]
    for _ in range(epochs):
        order = torch.randperm(len(labels), generator=generator)
        for part in batch_slices(len(order), batch_size):
            rows = order[part]
            loss = cross_entropy(head(features[rows, None], classes), labels[rows])
            gradients = list(torch.autograd.grad(loss, trained))
            if clip is not None:
                gradients = clipped(gradients, clip)
            rule = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum}
            descend(trained, gradients, buffers, **rule, nesterov=nesterov)
            steps += 1
    return steps
