"""Stochastic gradient descent: PyTorch's own arithmetic without its ``Optimizer`` object.

Making the first ``torch.optim.SGD`` of a process imports PyTorch's compiler, which takes more than
a second of every worker's start; the function that does the arithmetic needs none of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.optim.sgd import sgd


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


@torch.no_grad()
def descend_rows(
    parameters: list[Tensor],
    gradients: list[Tensor],
    buffers: list[Tensor | None],
    *,
    rates: Tensor,
    weight_decay: float,
    momentum: float,
) -> None:
    """Take one step with a learning rate of each row's own: :func:`descend` for stacked models.

    Args:
        parameters: What is trained, (k, ...) each.
        gradients: One a parameter; written.
        buffers: Momentum, one a parameter; None for none.
        rates: (k,) learning rates.
        weight_decay: As in :func:`descend`.
        momentum: As in :func:`descend`.
    """
    for parameter, gradient, buffer in zip(parameters, gradients, buffers, strict=True):
        step = gradient.add(parameter, alpha=weight_decay) if weight_decay else gradient
        if buffer is not None:
            step = buffer.mul_(momentum).add_(step)
        parameter.sub_(step * rates.view(-1, *[1] * (parameter.ndim - 1)))


def gradient_weight(factors: Iterable[float], momentum: float) -> float:
    """Return how many gradients, times the learning rate, some steps of :func:`descend` add up to.

    With momentum r the gradient of step j is in every later step k, as r^(k - j) of it. So K equal
    steps hold [K - r (1 - r^K) / (1 - r)] / (1 - r): the norm of a_k of Wang et al., Tackling the
    objective inconsistency problem, NeurIPS 2020, https://arxiv.org/abs/2007.07481. Without
    momentum that is K.

    Args:
        factors: Of the learning rate, one a step.
        momentum: The factor of the buffers; 0 for none.
    """
    total = buffer = 0.0
    for factor in factors:
        buffer = momentum * buffer + 1.0
        total += factor * buffer
    return total


@contextmanager
def climb(
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor | None],
    buffers: Iterable[Tensor],
    rho: float,
    *,
    rows: bool = False,
) -> Iterator[None]:
    """Stand ``rho * g / |g|`` uphill inside the context: SAM's ascent, in place.

    Foret et al., Sharpness-aware minimization, ICLR 2021, eq. 2, https://arxiv.org/abs/2010.01412.
    Outside, parameters and buffers have their bits again: running statistics are those of the first
    pass.

    Args:
        parameters: What is trained.
        gradients: One a parameter; None counts as zero.
        buffers: The model's buffers.
        rho: The length of the way.
        rows: The first dimension counts models; each has a norm of its own.
    """
    given = [(p, g.detach()) for p, g in zip(parameters, gradients, strict=True) if g is not None]
    kept = [(t, t.detach().clone()) for t in (*(p for p, _ in given), *buffers)]
    with torch.no_grad():
        squares = [g.square().flatten(1).sum(1) if rows else g.square().sum() for _, g in given]
        scale = rho / (torch.stack(squares).sum(0).sqrt() + 1e-12)  # (k,) or ()
        for parameter, gradient in given:
            own = scale.view(-1, *[1] * (gradient.ndim - 1)) if rows else scale
            parameter.add_(gradient * own)
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in kept:
                tensor.copy_(value)


@dataclass
class ParameterGroup:
    """Parameters that share a learning rate and a weight decay, and their momentum."""

    parameters: list[Tensor]
    lr: float
    weight_decay: float
    momentum: dict[int, Tensor | None] = field(default_factory=dict)  # position -> buffer


class Optimizer(ABC):
    """Groups of parameters, and how they take a step."""

    def __init__(self, groups: Iterable[ParameterGroup]) -> None:
        self.groups = list(groups)

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for group in self.groups:
            for parameter in group.parameters:
                parameter.grad = None

    @abstractmethod
    def step(self, factor: float = 1.0) -> None:
        """Take one step with every parameter that has a gradient, at ``factor`` times the rate."""


class Sgd(Optimizer):
    """The same bits as ``torch.optim.SGD`` with ``foreach=True``.

    Args:
        groups: The parameters to train.
        momentum: The factor of the momentum buffers; 0 for none.
    """

    def __init__(self, groups: Iterable[ParameterGroup], *, momentum: float = 0.0) -> None:
        super().__init__(groups)
        self.momentum = momentum

    def step(self, factor: float = 1.0) -> None:
        """Take one step with every parameter that has a gradient, at ``factor`` times the rate."""
        for group in self.groups:
            given = [i for i, p in enumerate(group.parameters) if p.grad is not None]
            buffers = [group.momentum.get(i) for i in given]
            descend(
                [group.parameters[i] for i in given],
                [grad for i in given if (grad := group.parameters[i].grad) is not None],
                buffers,
                lr=group.lr * factor,
                weight_decay=group.weight_decay,
                momentum=self.momentum,
            )
            group.momentum.update(zip(given, buffers, strict=True))
