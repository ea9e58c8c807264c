"""Class-conditional statistics of features: sums a client can send, Gaussians a server can draw.

The sums of counts, features and second moments over clients are those of the pooled data, so means
and covariances from them are those of equations 4 and 5 of CCVR (Luo et al., NeurIPS 2021,
https://arxiv.org/abs/2106.05001), whose clients send means and covariances instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal, Self

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from fedlt.data.augment import normalize
from fedlt.models.frozen import frozen_features

if TYPE_CHECKING:
    from fedlt.batch import ClientData
    from fedlt.models.model import Model

Moments = Literal["none", "diag", "full"]  # second moments: none, of each feature, of every pair

_BLOCK = 500  # images a forward pass


def rows_of(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return every stream's features as a row of its own: (B, S, D), (B,) -> (B S, D), (B S,)."""
    return features.flatten(0, 1), labels.repeat_interleave(features.shape[1])


def client_features(
    model: Model, data: ClientData, tensors: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Return the features of a client's images, not augmented, in evaluation mode.

    Args:
        model: Its architecture, and its values of what ``tensors`` lack.
        data: The client's images.
        tensors: Weights of the model that sees them, by the model's names.

    Returns:
        Features (n S, D), one row a stream, and labels (n S,), in the order of the client's images.
    """
    indices = data.indices.to(data.images.device)
    blocks = [
        frozen_features(model, tensors, normalize(data.images[block], data.mean, data.std))
        for block in torch.split(indices, _BLOCK)
    ]
    return rows_of(torch.cat(blocks), data.labels[indices])


def class_deviations(features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Return rows R (n, D) with R^T R the mean covariance of the classes, weighted by their counts.

    A class's covariance is divided by its count less 1; that of a single row is zero. Standard
    normal numbers (n,) times R have this covariance.

    Args:
        features: (n, D).
        labels: Classes (n,), int64.
        num_classes: C.
    """
    count = torch.zeros(num_classes, device=features.device).index_add_(
        0, labels, torch.ones(len(labels), device=features.device)
    )
    sums = features.new_zeros(num_classes, features.shape[1]).index_add_(0, labels, features)
    own = count[labels][:, None]  # (n, 1)
    centred = features - sums[labels] / own
    return centred * (own / (own - 1).clamp(min=1) / len(labels)).sqrt()


@dataclass(frozen=True)
class ClassSums:
    """Sums over the feature rows of each class. They add up over clients, field by field."""

    counts: Tensor  # (C,) rows
    sums: Tensor  # (C, D) of the rows
    products: Tensor | None = None  # (C, D) of their squares, or (C, D, D) of their outer products

    @classmethod
    def of(
        cls, features: Tensor, labels: Tensor, num_classes: int, moments: Moments = "none"
    ) -> Self:
        """Sum rows (N, D) with labels (N,) by class; in float64, returned as float32."""
        rows = features.double()
        member = F.one_hot(labels, num_classes).to(rows.dtype)  # (N, C)
        products = None
        if moments == "diag":
            products = (member.T @ rows.square()).float()
        elif moments == "full":
            own = [rows[labels == label] for label in range(num_classes)]
            products = torch.stack([part.T @ part for part in own]).float()
        return cls(member.sum(0).float(), (member.T @ rows).float(), products)

    def tensors(self, prefix: str = "") -> dict[str, Tensor]:
        """Return the sums by name after ``prefix``: what a client sends."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {f"{prefix}{name}": value for name, value in values.items() if value is not None}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], prefix: str = "") -> Self:
        """Take back what :meth:`tensors` returned, or a sum of several."""
        names = [field.name for field in fields(cls)]
        return cls(**{n: tensors[f"{prefix}{n}"] for n in names if f"{prefix}{n}" in tensors})

    def means(self) -> Tensor:
        """Return the class means (C, D); zero where a class has no row."""
        return self.sums / self.counts.clamp(min=1)[:, None]

    def gaussians(self) -> ClassGaussians:
        """Return each class's mean and unbiased covariance; zero covariance below two rows.

        Raises:
            ValueError: If there are no second moments.
        """
        if self.products is None:
            raise ValueError("gaussians: the sums have no second moments")
        counts = self.counts.double()
        sums, products = self.sums.double(), self.products.double()
        shape = (-1,) + (1,) * (products.ndim - 1)
        means = sums / counts.clamp(min=1)[:, None]  # (C, D), CCVR eq. 4
        square = means.square() if products.ndim == 2 else means[:, :, None] * means[:, None, :]
        scatter = products - counts.view(shape) * square
        spread = scatter / (counts - 1).clamp(min=1).view(shape)  # CCVR eq. 5
        return ClassGaussians(self.counts, means, spread * (counts > 1).view(shape))


@dataclass(frozen=True)
class ClassGaussians:
    """One Gaussian a class, in float64."""

    counts: Tensor  # (C,) rows behind each; nothing is drawn from a class with 0
    means: Tensor  # (C, D)
    covariances: Tensor  # (C, D) variances, or (C, D, D)

    def sample(self, numbers: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw rows from the classes.

        A covariance need not have full rank: directions without spread get none.

        Args:
            numbers: (C,) int64, rows from each class; 0 for one without a row behind it.
            generator: CPU generator. Every class has a draw of its own, so that the rows of one
                do not depend on how many the others get.

        Returns:
            Features float32 (N, D) and labels int64 (N,), classes in order.
        """
        size, features = self.means.shape
        seeds = torch.randint(2**62, (size,), generator=generator).tolist()
        drawn = []
        for label in numbers.nonzero().flatten().tolist():
            own = torch.Generator().manual_seed(seeds[label])
            shape = (int(numbers[label]), features)
            noise = torch.randn(shape, generator=own, dtype=torch.float64)  # (m, D)
            drawn.append((self.means[label] + self._spread(label, noise)).float())
        labels = torch.arange(size).repeat_interleave(numbers)
        return torch.cat([self.means.new_empty(0, features).float(), *drawn]), labels

    def _spread(self, label: int, noise: Tensor) -> Tensor:
        """Return standard normal rows (m, D) with the covariance of one class instead."""
        covariance = self.covariances[label]
        if covariance.ndim == 1:
            return noise * covariance.clamp(min=0).sqrt()
        values, vectors = torch.linalg.eigh(covariance)
        root: Tensor = vectors * values.clamp(min=0).sqrt()  # (D, D): R R^T = cov
        return noise @ root.T
