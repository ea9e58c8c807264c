"""Stochastic gradient descent: PyTorch's own arithmetic without PyTorch's ``Optimizer`` object.

The first ``torch.optim.SGD`` of a process imports PyTorch's compiler, which takes more than a
second of every worker's start. PyTorch's function that does the arithmetic needs no compiler.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
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
    nesterov: bool = False,
) -> None:
    """Take one SGD step in place.

    Args:
        parameters: Parameters to train.
        gradients: One gradient per parameter.
        buffers: One momentum buffer per parameter; None before the first step, which replaces it.
        lr: Learning rate.
        weight_decay: Factor of the parameter that is added to its gradient.
        momentum: Factor of the momentum buffers; 0 for no momentum.
        nesterov: Step along gradient + momentum * buffer instead of the buffer.
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
        nesterov=nesterov,
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
    nesterov: bool = False,
) -> None:
    """Take one SGD step for k stacked models in place, with one learning rate per model.

    Args:
        parameters: Parameters to train, (k, ...) each.
        gradients: One gradient per parameter; may be written.
        buffers: One momentum buffer per parameter; None for no momentum.
        rates: Learning rates (k,).
        weight_decay: As in :func:`descend`.
        momentum: As in :func:`descend`.
        nesterov: As in :func:`descend`.
    """
    for parameter, gradient, buffer in zip(parameters, gradients, buffers, strict=True):
        step = gradient.add(parameter, alpha=weight_decay) if weight_decay else gradient
        if buffer is not None:
            buffer.mul_(momentum).add_(step)
            step = step.add(buffer, alpha=momentum) if nesterov else buffer
        parameter.sub_(step * rates.view(-1, *[1] * (parameter.ndim - 1)))


@torch.no_grad()
def clipped(gradients: Sequence[Tensor], longest: float, *, rows: bool = False) -> list[Tensor]:
    """Return the gradients of a model as one vector shortened to a norm of ``longest``.

    The rule is that of ``torch.nn.utils.clip_grad_norm_``: the vector g of all gradients is
    multiplied by min(1, longest / (|g| + 1e-6)). Pascanu, Mikolov, Bengio, On the difficulty of
    training recurrent neural networks, ICML 2013, https://arxiv.org/abs/1211.5063, algorithm 1.

    Args:
        gradients: One gradient per parameter.
        longest: Above 0.
        rows: True for stacked models (first dimension): every model has its own norm ``|g|``.
    """
    squares = [
        g.square().reshape(len(g), -1).sum(1) if rows else g.square().sum() for g in gradients
    ]
    factors = (longest / (torch.stack(squares).sum(0).sqrt() + 1e-6)).clamp(max=1)  # (k,) or ()
    return [g * (factors.view(-1, *[1] * (g.ndim - 1)) if rows else factors) for g in gradients]


def gradient_weight(factors: Iterable[float], momentum: float, *, nesterov: bool = False) -> float:
    """Return the sum of the weights that gradients have in several steps of :func:`descend`.

    With momentum r, the gradient of step j also enters every later step k, with weight r^(k - j).
    K steps of one learning rate have weight [K - r (1 - r^K) / (1 - r)] / (1 - r), the norm of a_k
    of Wang et al., Tackling the objective inconsistency problem, NeurIPS 2020,
    https://arxiv.org/abs/2007.07481. Without momentum the weight is K. With Nesterov's momentum a
    step holds its own gradient once more, and the buffer r times.

    Args:
        factors: Factor of the learning rate in each step.
        momentum: Factor of the momentum buffers; 0 for no momentum.
        nesterov: As in :func:`descend`.
    """
    total = buffer = 0.0
    for factor in factors:
        buffer = momentum * buffer + 1.0
        total += factor * (1.0 + momentum * buffer if nesterov else buffer)
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
    """Move parameters ``rho * g / |g|`` uphill inside the block: SAM's ascent step.

    Foret et al., Sharpness-aware minimization, ICLR 2021, eq. 2, https://arxiv.org/abs/2010.01412.
    After the block, parameters and buffers have their former bits. BatchNorm statistics are thus
    those of the first forward pass.

    Args:
        parameters: Parameters to train, moved in place.
        gradients: One gradient g per parameter; None counts as zero.
        buffers: The model's buffers.
        rho: Length of the move.
        rows: True for stacked models (first dimension): every model has its own norm ``|g|``.
    """
    given = [(p, g.detach()) for p, g in zip(parameters, gradients, strict=True) if g is not None]
    kept = [(t, t.detach().clone()) for t in (*(p for p, _ in given), *buffers)]
    with torch.no_grad():
        squares = [
            g.square().reshape(len(g), -1).sum(1) if rows else g.square().sum() for _, g in given
        ]
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
    """Parameters with one learning rate and weight decay, and their momentum buffers."""

    parameters: list[Tensor]
    lr: float
    weight_decay: float
    momentum: dict[int, Tensor | None] = field(default_factory=dict)  # position -> buffer


class Optimizer(ABC):
    """Base class of the optimisers: groups of parameters, and a step that subclasses define.

    Args:
        groups: Parameters to train.
        clip: Longest gradient, all groups' gradients as one vector, see :func:`clipped`; None: any.
    """

    def __init__(self, groups: Iterable[ParameterGroup], *, clip: float | None = None) -> None:
        self.groups, self.clip = list(groups), clip

    def zero_grad(self) -> None:
        """Remove the gradients of all parameters."""
        for group in self.groups:
            for parameter in group.parameters:
                parameter.grad = None

    def step(self, factor: float = 1.0) -> None:
        """Update every parameter that has a gradient, at ``factor`` times the learning rate."""
        if self.clip is not None:
            clip_grad_norm_([p for group in self.groups for p in group.parameters], self.clip)
        self._step(factor)

    @abstractmethod
    def _step(self, factor: float) -> None:
        """Take the step of :meth:`step` with the gradients as they are."""


class Sgd(Optimizer):
    """SGD over groups of parameters, with the bits of ``torch.optim.SGD(foreach=True)``.

    Args:
        groups: Parameters to train.
        momentum: Factor of the momentum buffers; 0 for no momentum.
        nesterov: As in :func:`descend`.
        clip: As in :class:`Optimizer`.
    """

    def __init__(
        self,
        groups: Iterable[ParameterGroup],
        *,
        momentum: float = 0.0,
        nesterov: bool = False,
        clip: float | None = None,
    ) -> None:
        super().__init__(groups, clip=clip)
        self.momentum, self.nesterov = momentum, nesterov

    def _step(self, factor: float) -> None:
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
                nesterov=self.nesterov,
            )
            group.momentum.update(zip(given, buffers, strict=True))
