"""Classifiers trained on given features: softmax regression by mini-batch SGD.

The gradients are written out, so a step costs a few matrix products. Methods that retrain a head on
a frozen backbone use this module: CCVR and CReFF on synthetic features, cRT and LWS (Kang et al.,
ICLR 2020, https://arxiv.org/abs/1910.09217) on real features. All random numbers come from the
generator in the arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fedlt.data.batches import batch_slices
from fedlt.optim.sgd import descend

Head = dict[str, Tensor]  # weight (C, D) and bias (C,), as ``LinearHead`` has them


@dataclass(frozen=True)
class ProbeSettings:
    """Settings of SGD on features."""

    epochs: int
    lr: float
    batch_size: int = 32
    momentum: float = 0.0
    weight_decay: float = 0.0
    balanced: bool = False  # True: draw rows with replacement, every class with the same chance


def draw_head(num_features: int, num_classes: int, generator: torch.Generator) -> Head:
    """Return a linear head initialised as ``LinearHead``, U(-1/sqrt(D), 1/sqrt(D))."""
    bound = num_features**-0.5
    drawn = torch.rand(num_classes, num_features + 1, generator=generator)
    values = (2 * drawn - 1) * bound
    return {"weight": values[:, :-1].contiguous(), "bias": values[:, -1].contiguous()}


def softmax_error(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the gradient of the mean cross-entropy with respect to logits (B, C)."""
    error = logits.softmax(dim=-1)
    error[torch.arange(len(labels)), labels] -= 1
    return error.div_(len(labels))


def train_head(
    head: Head,
    features: Tensor,
    labels: Tensor,
    settings: ProbeSettings,
    generator: torch.Generator,
) -> Head:
    """Return a linear head trained by cross-entropy on features.

    Args:
        head: Head to start from, ``weight`` (C, D) and ``bias`` (C,); not written.
        features: (N, D).
        labels: (N,) int64. Class vectors of classes without a label get no gradient, since no
            feature says where they should lie.
        settings: Epochs, rates and batches.
        generator: CPU generator of the order of the rows.
    """
    held = torch.zeros(len(head["bias"]), dtype=head["bias"].dtype)
    held[labels] = 1

    def gradients(trained: list[Tensor], rows: Tensor) -> list[Tensor]:
        weight, bias = trained
        chosen = features[rows]
        error = softmax_error(torch.addmm(bias, chosen, weight.T), labels[rows]) * held  # (B, C)
        return [error.T @ chosen, error.sum(0)]

    weight, bias = _train([head["weight"], head["bias"]], gradients, labels, settings, generator)
    return {"weight": weight, "bias": bias}


def train_scales(
    head: Head,
    features: Tensor,
    labels: Tensor,
    settings: ProbeSettings,
    generator: torch.Generator,
) -> Tensor:
    """Return factors (C,), one per class, learnt for the class vectors of a frozen head: LWS.

    The logits are ``scale_c * <w_c, f> + b_c``; the factors start at 1.

    Args:
        head: ``weight`` (C, D) and ``bias`` (C,).
        features: (N, D).
        labels: (N,) int64.
        settings: Epochs, rates and batches.
        generator: CPU generator of the order of the rows.
    """
    products = features @ head["weight"].T  # (N, C)

    def gradients(trained: list[Tensor], rows: Tensor) -> list[Tensor]:
        chosen = products[rows]
        error = softmax_error(chosen * trained[0] + head["bias"], labels[rows])
        return [(error * chosen).sum(0)]

    (scales,) = _train([torch.ones_like(head["bias"])], gradients, labels, settings, generator)
    return scales


@torch.no_grad()
def _train(
    start: list[Tensor],
    gradients: Callable[[list[Tensor], Tensor], list[Tensor]],
    labels: Tensor,
    settings: ProbeSettings,
    generator: torch.Generator,
) -> list[Tensor]:
    """Return the tensors of ``start`` trained by SGD; ``start`` is not written."""
    trained = [tensor.clone() for tensor in start]
    buffers: list[Tensor | None] = [None for _ in trained]
    for _ in range(settings.epochs):
        for rows in _batches(labels, settings, generator):
            descend(
                trained,
                gradients(trained, rows),
                buffers,
                lr=settings.lr,
                weight_decay=settings.weight_decay,
                momentum=settings.momentum,
            )
    return trained


def _batches(
    labels: Tensor, settings: ProbeSettings, generator: torch.Generator
) -> Iterator[Tensor]:
    """Yield the row numbers of each batch of one epoch."""
    if settings.balanced:
        weights = labels.bincount().double().reciprocal()[labels]
        order = torch.multinomial(weights, len(labels), replacement=True, generator=generator)
    else:
        order = torch.randperm(len(labels), generator=generator)
    for part in batch_slices(len(order), settings.batch_size):
        yield order[part]
