"""Parts of Fed-GraB: a gradient balancer for each class, and a class prior from head norms.

Xiao et al., Fed-GraB: federated long-tailed learning with self-adjusting gradient balancer, NeurIPS
2023, https://arxiv.org/abs/2310.07587.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from fedlt.models.heads import LinearHead


class GradientBalancer(nn.Module):
    """One-vs-all cross-entropy whose positive and negative gradients a PID controller balances.

    Each class has a controller. Its controlled value is the sum of the absolute gradients on
    positives minus the sum on negatives since local training began; its target is 0.

    Args:
        num_classes: C.
        gains: Kp, Ki and Kd of the incremental controller.
        slope: Slope of the weight as a function of the controller's output (:func:`weight_of`).
        limit: Largest absolute output.
    """

    difference: Tensor  # (C,) positive minus negative gradients so far
    output: Tensor  # (C,) outputs of the controllers
    errors: Tensor  # (2, C) control errors of the last step and of the step before

    def __init__(
        self, num_classes: int, gains: tuple[float, float, float], slope: float, limit: float
    ) -> None:
        super().__init__()
        self.gains, self.slope, self.limit = gains, slope, limit
        self.register_buffer("difference", torch.zeros(num_classes))
        self.register_buffer("output", torch.zeros(num_classes))
        self.register_buffer("errors", torch.zeros(2, num_classes))

    def weight_of(self, output: Tensor) -> Tensor:
        """Return g(u) = (10/9) / (1/9 + e^(-slope u)), a weight between 0 and 10 with g(0) = 1."""
        return (10 / 9) / (1 / 9 + torch.exp(-self.slope * output))

    def forward(self, logits: Tensor, labels: Tensor, balanced: Tensor) -> Tensor:
        """Return the loss of a batch, and update the controllers.

        Args:
            logits: (B, S, C).
            labels: (B,), int64.
            balanced: (C,), 1 for classes under control; other classes keep the weight 1.

        Returns:
            A scalar: the sum over classes, the mean over streams and batch.
        """
        classes = torch.arange(logits.shape[-1], device=logits.device)
        positive = (classes == labels[:, None])[:, None].expand_as(logits).to(logits.dtype)
        rows = logits.shape[0] * logits.shape[1]
        with torch.no_grad():
            error = -self.difference
            last, older = self.errors[0], self.errors[1]
            kp, ki, kd = self.gains
            moved = kp * (error - last) + ki * error + kd * (error - 2 * last + older)
            output = (self.output + moved).clamp(-self.limit, self.limit)
            under = balanced > 0
            up = torch.where(under, self.weight_of(output), 1.0)
            down = torch.where(under, self.weight_of(-output), 1.0)
            weights = positive * up + (1 - positive) * down  # (B, S, C)
            gradient = weights * (logits.sigmoid() - positive).abs() / rows
            seen = (gradient * (2 * positive - 1)).sum(dim=(0, 1))  # (C,)
            self.output.copy_(torch.where(under, output, self.output))
            self.errors.copy_(torch.where(under, torch.stack([error, last]), self.errors))
            self.difference.copy_(torch.where(under, self.difference + seen, self.difference))
        every = binary_cross_entropy_with_logits(logits, positive, reduction="none")
        return (weights * every).sum() / rows


class BalancedHead(LinearHead):
    """A linear head that carries the balancer of its classes; its logits ignore the balancer."""

    def __init__(self, num_features: int, balancer: GradientBalancer) -> None:
        super().__init__(num_features, len(balancer.output))
        self.balancer = balancer


def norm_prior(weight: Tensor) -> Tensor:
    """Return the class prior (C,) that the norms of a classifier's rows suggest.

    The smallest norm is subtracted from every norm, and the result is scaled to a sum of 1. Equal
    norms give the uniform prior. (Standardising the norms first would change nothing.)

    Args:
        weight: (C, D).
    """
    norms = torch.linalg.vector_norm(weight, dim=-1)
    above = norms - norms.min()
    total = above.sum()
    uniform = torch.full_like(above, 1 / len(above))
    return torch.where(total > 0, above / total.clamp(min=1e-30), uniform)


def rare_classes(prior: Tensor, *, covered: float) -> Tensor:
    """Return a mask of the rare classes: those outside the most frequent ones.

    Classes are taken in order of falling prior until they cover the share ``covered``; the
    remaining classes are rare.

    Args:
        prior: (C,), sums to 1.
        covered: Share in [0, 1); 0 makes all classes rare.

    Returns:
        float32 (C,): 1 for rare classes, 0 for the others.
    """
    order = prior.argsort(descending=True, stable=True)
    before = prior[order].cumsum(0) - prior[order]  # share of the classes before each
    rare = torch.zeros(len(prior), device=prior.device)
    rare[order] = (before >= covered - 1e-6).float()
    return rare
