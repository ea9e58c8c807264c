"""Square-root sampling: Kang et al., Decoupling representation and classifier, ICLR 2020.

https://arxiv.org/abs/1910.09217; after Mahajan et al., ECCV 2018, https://arxiv.org/abs/1805.00932.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from clients.class_balanced_sampling import ClassBalancedSampling


@dataclass(frozen=True)
class SquareRootSampling(ClassBalancedSampling):
    """Draws a class in proportion to the square root of its count, then a random image of it."""

    power: ClassVar[float] = 0.5
