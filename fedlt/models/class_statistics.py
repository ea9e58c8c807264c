"""Class statistics of features: sums that clients send, Gaussians that the server draws from.

Counts, sums and second moments of features add up over clients to those of the pooled data. The
means and covariances are therefore those of equations 4 and 5 of CCVR (Luo et al., NeurIPS 2021,
https://arxiv.org/abs/2106.05001), where clients send means and covariances instead.
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
    from fedlt.models.model import Model
    from fedlt.optim.batch import ClientData

Moments = Literal["none", "diag", "full"]  # second moments: none, of each feature, of every pair

_BLOCK = 500  # images per forward pass


def rows_of(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return one row and one label per stream: (B, S, D), (B,) -> (B S, D), (B S,)."""
    return features.flatten(0, 1), labels.repeat_interleave(features.shape[1])


def client_features(
    model: Model, data: ClientData, tensors: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Return the features of a client's images, not augmented, in evaluation mode.

    Args:
        model: Model whose architecture is used; it gives the values that ``tensors`` lack.
        data: The client's images.
        tensors: Weights to compute the features with, by the model's names.

    Returns:
        Features (n S, D), one row per stream, and labels (n S,), in the order of the images.
    """
    indices = data.indices.to(data.images.device)
    blocks = [
        frozen_features(model, tensors, normalize(data.images[block], data.mean, data.std))
        for block in torch.split(indices, _BLOCK)
    ]
    return rows_of(torch.cat(blocks), data.labels[indices])


def class_deviations(features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Return rows R (n, D) such that R^T R is the count-weighted mean of the class covariances.

    The covariance of a class is divided by its count minus 1, and is zero for a single row.
    Multiplying standard normal numbers (n,) by R gives noise (D,) of this covariance.

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
    """Sums over the feature rows of each class; the fields of several clients can be added."""

    counts: Tensor  # (C,) number of rows
    sums: Tensor  # (C, D) sums of the rows
    products: Tensor | None = None  # sums of squares (C, D) or of outer products (C, D, D)

    @classmethod
    def of(
        cls, features: Tensor, labels: Tensor, num_classes: int, moments: Moments = "none"
    ) -> Self:
        """Return sums by class of rows (N, D) with labels (N,), added in float64, as float32."""
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
        """Return the sums as named tensors that a client can send; names begin with ``prefix``."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {f"{prefix}{name}": value for name, value in values.items() if value is not None}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], prefix: str = "") -> Self:
        """Return sums from named tensors as :meth:`tensors` gives them, also after adding several.

        Example: the server adds the tensors of all clients and reads the total.
        """
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
    """One Gaussian per class, in float64."""

    counts: Tensor  # (C,) rows that each Gaussian is estimated from
    means: Tensor  # (C, D)
    covariances: Tensor  # (C, D) variances, or (C, D, D)

    def sample(self, numbers: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return features drawn from the Gaussians, and their labels.

        A covariance need not have full rank: directions without variance get no noise.

        Args:
            numbers: (C,) int64, rows to draw from each class; 0 for a class without any count.
            generator: CPU generator. Every class gets a seed of its own from this generator, so
                the rows of a class do not depend on the numbers of the other classes.

        Returns:
            Features float32 (N, D) and labels int64 (N,), in the order of the classes.
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
        """Return standard normal rows (m, D) transformed to the covariance of one class."""
        covariance = self.covariances[label]
        if covariance.ndim == 1:
            return noise * covariance.clamp(min=0).sqrt()
        values, vectors = torch.linalg.eigh(covariance)
        root: Tensor = vectors * values.clamp(min=0).sqrt()  # (D, D): R R^T = cov
        return noise @ root.T
