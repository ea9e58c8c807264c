"""CCVR's second half: a linear head trained further on features drawn from class Gaussians.

Luo et al., No fear of heterogeneity: classifier calibration for federated learning with non-IID
data, NeurIPS 2021. https://arxiv.org/abs/2106.05001
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from fedlt.errors import nearest
from fedlt.models.class_statistics import ClassSums
from fedlt.models.linear_probe import Head, ProbeSettings, train_head

Covariance = Literal["full", "diag"]
Allocation = Literal["equal", "proportional"]


@dataclass(frozen=True)
class Calibration:
    """How many features are drawn from what, and how the head is trained on them.

    Equal numbers balance the classes that the head is trained on, whatever the data's counts are;
    proportional ones keep the data's long tail, as the paper's M_c may.
    """

    covariance: Covariance = "full"  # full: C D^2 numbers a client
    allocation: Allocation = "equal"  # features of a class: as many as of any other, or by n_c
    per_class: int = 100  # M_c: features drawn from each class, on average
    epochs: int = 100  # passes over them; 0: the head stays as it is
    lr: float = 0.01
    momentum: float = 0.9
    batch_size: int = 32

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: If one of them is out of range.
        """
        for name, known in (("covariance", Covariance), ("allocation", Allocation)):
            value, names = getattr(self, name), get_args(known)
            if value not in names:
                raise ValueError(f"{name}: unknown {value!r}{nearest(value, names)}")
        for name in ("per_class", "lr", "batch_size"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}: {getattr(self, name)} is not above 0")
        if self.epochs < 0:
            raise ValueError(f"epochs: {self.epochs} is below 0")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum: {self.momentum} is not in [0, 1)")

    def numbers(self, counts: Tensor) -> Tensor:
        """Return how many features are drawn of each class, (C,) int64.

        Proportional: ``per_class`` times the number of classes that have images, shared out by
        their images and rounded, at least one each.

        Args:
            counts: (C,) images of each class; of a class without images none is drawn.
        """
        held = counts > 0
        if self.allocation == "equal":
            return held.long() * self.per_class
        share = counts.double() / counts.double().sum().clamp(min=1)
        shared = (self.per_class * int(held.sum()) * share).round().long()
        return torch.where(held, shared.clamp(min=1), 0)

    def calibrate(self, head: Head, sums: ClassSums, generator: torch.Generator) -> Head:
        """Return a head trained on features drawn from the classes' Gaussians, algorithm 1.

        Args:
            head: The start; not written. Classes without images keep their vectors.
            sums: Counts, sums and second moments of the features by class.
            generator: CPU generator of the draws and of the order.
        """
        gaussians = sums.gaussians()  # eq. 4 and 5
        features, labels = gaussians.sample(self.numbers(sums.counts), generator)
        settings = ProbeSettings(self.epochs, self.lr, self.batch_size, self.momentum)
        return train_head(head, features, labels, settings, generator)
