"""Which images an epoch draws, by class: Kang et al., Decoupling representation and classifier.

ICLR 2020, https://arxiv.org/abs/1910.09217, equation 1.
"""

from __future__ import annotations

import torch
from torch import Tensor


def class_shares(counts: Tensor, *, power: float) -> Tensor:
    """Return n_c^q over the sum of it: the share (C,) of each class among the draws.

    Args:
        counts: (C,) images of each class; classes without one get nothing, whatever the power.
        power: q: 1 draws images alike, 0 classes alike.
    """
    raw = torch.where(counts > 0, counts.double().clamp(min=1) ** power, 0.0)
    return raw / raw.sum().clamp(min=1e-12)


def draw_rows(labels: Tensor, shares: Tensor, draws: int, generator: torch.Generator) -> Tensor:
    """Return positions (draws,) in ``labels``, drawn with replacement.

    A class is drawn by its share, then one of its images, each alike.

    Args:
        labels: Classes (n,), int64, on the CPU.
        shares: (C,), above 0 for some class among the labels.
        draws: How many.
        generator: CPU generator.
    """
    if draws == 0:
        return torch.zeros(0, dtype=torch.int64)
    counts = labels.bincount(minlength=len(shares))
    chances = (shares / counts.clamp(min=1))[labels]  # (n,)
    return torch.multinomial(chances, draws, replacement=True, generator=generator)
