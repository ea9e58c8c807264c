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

__all__ = ["ParameterGroup", "Sgd"]


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

    @torch.no_grad()
    def step(self) -> None:
        """Take one step with every parameter that has a gradient."""
        for group in self.groups:
            given = [i for i, p in enumerate(group.parameters) if p.grad is not None]
            buffers = [group.momentum.get(i) for i in given]
            sgd(
                [group.parameters[i] for i in given],
                [grad for i in given if (grad := group.parameters[i].grad) is not None],
                buffers,
                foreach=True,
                weight_decay=group.weight_decay,
                momentum=self.momentum,
                lr=group.lr,
                dampening=0.0,
                nesterov=False,
                maximize=False,
            )
            group.momentum.update(zip(given, buffers, strict=True))
