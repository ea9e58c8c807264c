"""AdamW: Loshchilov and Hutter, ICLR 2019, https://arxiv.org/abs/1711.05101, algorithm 2.

AdamW is meant for transformers, which plain SGD trains slowly. Moments begin at zero in every phase
of a client task and stay on the client, as SGD's momentum does.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from fedlt.optim.sgd import Optimizer, ParameterGroup

_BETA1, _BETA2, _EPS = 0.9, 0.999, 1e-8


@dataclass
class AdamMoments:
    """Running means of a parameter's gradients and of their squares; written in place."""

    first: Tensor
    second: Tensor

    @staticmethod
    def of(parameter: Tensor) -> AdamMoments:
        """Return the moments of a parameter before its first step: zeros."""
        zeros = torch.zeros_like(parameter, requires_grad=False)
        return AdamMoments(zeros, zeros.clone())


@torch.no_grad()
def adamw(
    parameter: Tensor,
    gradient: Tensor,
    moments: AdamMoments,
    *,
    steps: Tensor,
    rates: Tensor,
    weight_decay: float,
) -> None:
    """Take one AdamW step in place.

    Args:
        parameter: Parameter to train; (k, ...) for k stacked models.
        gradient: Gradient of the parameter.
        moments: Moments of the parameter; written.
        steps: Number of this step, from 1, () or (k,), float64.
        rates: Learning rates, () or (k,), float64.
        weight_decay: Decoupled weight decay: rate * weight_decay * parameter is subtracted.
    """
    shape = (-1, *[1] * (parameter.ndim - 1)) if steps.ndim else ()

    def scale(values: Tensor) -> Tensor:
        return values.to(parameter.dtype).view(shape)

    moments.first.lerp_(gradient, 1 - _BETA1)
    moments.second.mul_(_BETA2).addcmul_(gradient, gradient, value=1 - _BETA2)
    root = moments.second.sqrt().div_(scale((1 - _BETA2**steps).sqrt())).add_(_EPS)
    parameter.mul_(scale(1 - rates * weight_decay))
    parameter.sub_(scale(rates / (1 - _BETA1**steps)) * moments.first / root)


class AdamW(Optimizer):
    """AdamW over groups of parameters; ``clip`` as in :class:`fedlt.optim.sgd.Optimizer`."""

    def __init__(self, groups: Iterable[ParameterGroup], *, clip: float | None = None) -> None:
        super().__init__(groups, clip=clip)
        self.moments: dict[int, tuple[AdamMoments, int]] = {}  # id -> moments and steps taken

    def _step(self, factor: float) -> None:
        for group in self.groups:
            rates = torch.tensor(group.lr * factor, dtype=torch.float64)
            for parameter in group.parameters:
                if parameter.grad is None:
                    continue
                known = self.moments.get(id(parameter)) or (AdamMoments.of(parameter), 0)
                moments, steps = known[0], known[1] + 1
                adamw(
                    parameter,
                    parameter.grad,
                    moments,
                    steps=torch.tensor(float(steps), dtype=torch.float64),
                    rates=rates,
                    weight_decay=group.weight_decay,
                )
                self.moments[id(parameter)] = moments, steps
