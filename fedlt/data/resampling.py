"""Class-dependent sampling of images: Kang et al., Decoupling representation and classifier.

ICLR 2020, https://arxiv.org/abs/1910.09217, equation 1.
"""

from __future__ import annotations

import torch
from torch import Tensor


def class_shares(counts: Tensor, *, power: float) -> Tensor:
    """Return the probability of each class (C,) in sampling, n_c^q / sum of n_j^q over classes j.

    Args:
        counts: Class counts n (C,); an absent class has probability 0, whatever the power.
        power: q. With 1 all images are equally likely, with 0 all classes are.
    """
    raw = torch.where(counts > 0, counts.double().clamp(min=1) ** power, 0.0)
    return raw / raw.sum().clamp(min=1e-12)


def draw_rows(labels: Tensor, shares: Tensor, draws: int, generator: torch.Generator) -> Tensor:
    """Return rows (draws,) of ``labels``, drawn with replacement.

    A class is drawn with the probability in ``shares``, then one of its images uniformly.

    Args:
        labels: Classes (n,), int64, on the CPU.
        shares: (C,), above 0 for some class among the labels.
        draws: Number of rows to draw.
        generator: CPU generator.
    """
    if draws == 0:
        return torch.zeros(0, dtype=torch.int64)
    counts = labels.bincount(minlength=len(shares))
    chances = (shares / counts.clamp(min=1))[labels]  # (n,)
    return torch.multinomial(chances, draws, replacement=True, generator=generator)
