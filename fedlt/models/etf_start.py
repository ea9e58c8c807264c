"""Pace of the first steps through SSE-C, and the norm of its class vectors that keeps this pace.

A step of SGD with the learning rate ``lr`` and momentum ``m`` lowers the loss through a fixed
classifier by about ``lr / (1 - m) * g``, where g is the squared norm of the loss's gradient in the
backbone. Before training the softmax is nearly uniform, so that g grows with the square of the
class vectors' norm, and so does the pace. The classifier of FedLoGe (Xiao et al., ICLR 2024) has
the published norm 0.1 for a ResNet-18; the norm with that pace for another network is

    norm * sqrt(PUBLISHED_PACE / pace)

``benchmarks/sse_c_norm.py`` measures paces. They depend on the number of features (in proportion,
for one kind of convolutional network) and as much on depth.
"""

from __future__ import annotations

import math
from statistics import fmean
from typing import Final

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from fedlt.config.local_section import LocalConfig
from fedlt.data.augment import normalize
from fedlt.models.heads import FixedHead
from fedlt.models.model import Model
from fedlt.models.modes import set_training_modes
from fedlt.optim.batch import ClientData

PUBLISHED_PACE: Final = 0.40  # loss a step: ResNet-18, CIFAR-10, norm 0.1, lr 0.03, momentum 0.5
FAR: Final = 2.5  # factor between norms from which on a run says so
BATCH: Final = 8  # images of a gradient, as in the published runs
BATCHES: Final = 4  # gradients of a mean


def squared_gradient(model: Model, head: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the mean squared norm of the backbone's gradient of the cross-entropy, over batches.

    The model is as it was after the call. The result is 0 if nothing of the backbone is trained.

    Args:
        model: The model before its first step.
        head: A classifier (B, S, D) -> (B, S, C).
        images: (N, Ch, H, W), normalised; batches of :data:`BATCH` rows, and the rest.
        labels: (N,) int64.
    """
    backbone = model.backbone
    trained = {n: p for n, p in backbone.named_parameters() if p.requires_grad}
    if not trained:
        return 0.0
    was_training = [(part, part.training) for part in model.modules()]
    set_training_modes(model, [f"backbone.{name}" for name in trained])
    found = []
    try:
        for first in range(0, len(images), BATCH):
            part, own = images[first : first + BATCH], labels[first : first + BATCH]
            buffers = {name: buffer.clone() for name, buffer in backbone.named_buffers()}
            with torch.enable_grad():
                logits = head(functional_call(backbone, buffers, (part,)))  # (B, S, C)
                repeated = own.repeat_interleave(logits.shape[1])
                loss = cross_entropy(logits.flatten(0, 1), repeated)
                gradients = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
            found.append(sum(float(one.square().sum()) for one in gradients if one is not None))
    finally:
        for module, mode in was_training:
            module.training = mode
    return fmean(found)


def spread_images(data: ClientData) -> Tensor:
    """Return up to ``BATCH * BATCHES`` normalised images of a client, evenly spaced in every batch.

    A client's images may be sorted by class. Whole batches only, if the images fill one.
    """
    total = data.num_examples
    count = min(total, BATCH * BATCHES)
    count -= count % BATCH if count > BATCH else 0
    batches = max(1, count // BATCH)
    places = torch.arange(count) * total // max(count, 1)
    mixed = torch.cat([places[first::batches] for first in range(batches)])
    rows = data.indices[mixed.to(data.indices.device)]
    return normalize(data.images.index_select(0, rows), data.mean, data.std)


def first_rate(local: LocalConfig, rounds: int) -> float:
    """Return ``lr / (1 - momentum)`` without a warm-up; 0 for another optimiser than SGD.

    Args:
        local: Of the first round, with that round's learning rate.
        rounds: Of the whole run.
    """
    if local.optimizer != "sgd":
        return 0.0
    return local.lr / local.schedule.at(1, rounds) / (1 - local.momentum)


def slow_start(model: Model, head: nn.Module, data: ClientData, rate: float) -> str:
    """Return a line for a run whose first steps are far slower than published ones; "" otherwise.

    The labels are drawn at random, as before training a network knows of no class: the few classes
    of one client are not what the run's paces have in common.

    Args:
        model: The model before its first step.
        head: SSE-C; nothing is said of a cosine head, whose scale is another quantity.
        data: A client's images.
        rate: As of :func:`first_rate`.
    """
    is_linear = isinstance(head, FixedHead) and head.scale is None
    if not is_linear or not rate or not data.num_examples:
        return ""
    images, generator = spread_images(data), torch.Generator().manual_seed(0)
    labels = torch.randint(model.num_classes, (len(images),), generator=generator)
    pace = rate * squared_gradient(model, head, images, labels.to(images.device))
    factor = math.sqrt(PUBLISHED_PACE / pace) if pace > 0 else 1.0
    if factor <= FAR:
        return ""
    norm = float(torch.linalg.vector_norm(head.get_buffer("weight"), dim=1).mean())
    return (
        f"strategy.etf_norm: at {norm:.2g} the first steps of this network are {factor**2:,.0f} "
        f"times as slow as the published ones; {factor * norm:.2g} has their pace, or a larger "
        "local.lr"
    )
