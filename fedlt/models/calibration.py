"""Classifier calibration of CCVR: train a linear head on features drawn from class Gaussians.

Luo et al., No fear of heterogeneity: classifier calibration for federated learning with non-IID
data, NeurIPS 2021. https://arxiv.org/abs/2106.05001
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fedlt.config.ranges import Checked, Count, Positive, ShareBelowOne, Whole
from fedlt.models.class_statistics import ClassSums
from fedlt.models.linear_probe import Head, ProbeSettings, train_head

Covariance = Literal["full", "diag"]
Allocation = Literal["equal", "proportional"]


@dataclass(frozen=True)
class Calibration(Checked):
    """Settings of a calibration: features drawn per class, and training of the head on them.

    The allocation ``equal`` draws the same number of features from every class, whatever the class
    counts are. ``proportional`` keeps the data's long tail, as the paper's M_c may.
    """

    covariance: Covariance = "full"  # full: every client sends C D^2 numbers
    allocation: Allocation = "equal"  # features drawn per class: equal, or by class counts
    per_class: Count = 100  # M_c: features drawn from each class, on average
    epochs: Whole = 100  # passes over the drawn features; 0: the head stays as it is
    lr: Positive = 0.01
    momentum: ShareBelowOne = 0.9
    batch_size: Count = 32

    def numbers(self, counts: Tensor) -> Tensor:
        """Return the number of features to draw from each class, (C,) int64.

        A proportional allocation divides ``per_class`` times the number of classes with images
        by the class counts, rounded, at least one per class with images.

        Args:
            counts: (C,) images of each class; a class without images gets no feature.
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
            head: Head to start from; not written. Classes without images keep their vectors.
            sums: Counts, sums and second moments of the features by class.
            generator: CPU generator of the drawn features and of their order in training.
        """
        gaussians = sums.gaussians()  # eq. 4 and 5
        features, labels = gaussians.sample(self.numbers(sums.counts), generator)
        settings = ProbeSettings(self.epochs, self.lr, self.batch_size, self.momentum)
        return train_head(head, features, labels, settings, generator)
