"""Stochastic gradient descent: PyTorch's own arithmetic without its ``Optimizer`` object.

Making the first ``torch.optim.SGD`` of a process imports PyTorch's compiler, which takes more than
a second of every worker's start; the function that does the arithmetic needs none of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.optim.sgd import sgd

__all__ = ["ParameterGroup", "Sgd", "descend"]


@torch.no_grad()
def descend(
    parameters: list[Tensor],
    gradients: list[Tensor],
    buffers: list[Tensor | None],
    *,
    lr: float,
    weight_decay: float,
    momentum: float,
) -> None:
    """Take one step, in place.

    Args:
        parameters: What is trained.
        gradients: One a parameter.
        buffers: Momentum, one a parameter; None before its first step, which then makes it.
        lr: Learning rate.
        weight_decay: Times the parameter, it is added to the gradient.
        momentum: The factor of the buffers; 0 for none.
    """
    sgd(
        parameters,
        gradients,
        buffers,
        foreach=True,
        weight_decay=weight_decay,
        momentum=momentum,
        lr=lr,
        dampening=0.0,
        nesterov=False,
        maximize=False,
    )


@dataclass
class ParameterGroup:
    """Parameters that share a learning rate and a weight decay, and their momentum."""

    parameters: list[Tensor]
    lr: float
    weight_decay: float
    momentum: dict[int, Tensor | None] = field(default_factory=dict)  # position -> buffer


class Sgd:
    """The same bits as ``torch.optim.SGD`` with ``foreach=True``.

    Args:
        groups: The parameters to train.
        momentum: The factor of the momentum buffers; 0 for none.
    """

    def __init__(self, groups: Iterable[ParameterGroup], *, momentum: float = 0.0) -> None:
        self.groups, self.momentum = list(groups), momentum

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for group in self.groups:
            for parameter in group.parameters:
                parameter.grad = None

    def step(self) -> None:
        """Take one step with every parameter that has a gradient."""
        for group in self.groups:
            given = [i for i, p in enumerate(group.parameters) if p.grad is not None]
            buffers = [group.momentum.get(i) for i in given]
            descend(
                [group.parameters[i] for i in given],
                [grad for i in given if (grad := group.parameters[i].grad) is not None],
                buffers,
                lr=group.lr,
                weight_decay=group.weight_decay,
                momentum=self.momentum,
            )
            group.momentum.update(zip(given, buffers, strict=True))
