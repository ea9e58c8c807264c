"""Measures of a pool at each level: similarity of images to their sources, and diversity.

Images of low levels are often assumed to be diverse. The assumption holds for a generator trained
on other images, such as a pretrained one, but may fail for a generator trained on the sources.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from fedlt.data import FederatedData
    from fedlt.generators.pool import Pool


def similarities(images: NDArray[np.uint8], sources: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the cosine (M,) of each image's pixels and its source's pixels."""
    first, second = (part.reshape(len(part), -1).astype(float) for part in (images, sources))
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    cosines: NDArray[np.float64] = (first * second).sum(axis=1) / np.maximum(norms, 1e-12)
    return cosines


def spread(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> float:
    """Return the mean distance of images from their class's mean image, pixels in [0, 1]."""
    flat = images.reshape(len(images), -1) / 255
    means = np.zeros((labels.max() + 1, flat.shape[1]))
    np.add.at(means, labels, flat)
    means /= np.maximum(np.bincount(labels), 1)[:, None]
    return float(np.linalg.norm(flat - means[labels], axis=1).mean())


def level_lines(pool: Pool, data: FederatedData, least_score: float) -> Iterator[str]:
    """Yield one line of measures for each level of a pool, and a last line for the sources."""
    place = np.full(int(max(pool.sources.max(), data.pool_indices.max())) + 1, -1)
    place[data.pool_indices] = np.arange(len(data.pool_indices))
    for level in sorted(set(pool.levels.tolist())):
        here = pool.take(pool.levels == level)
        near = similarities(here.images, data.train_images[place[here.sources]]).mean()
        kept = 1.0 if here.scores is None else float((here.scores >= least_score).mean())
        wide = spread(here.images, here.labels)
        yield (
            f"level {level:g}: {len(here)} images, {100 * kept:.0f} % pass, similarity to the "
            f"source {near:.2f}, spread {wide:.2f}"
        )
    real = np.unique(place[pool.sources])
    wide = spread(data.train_images[real], data.train_labels[real])
    yield f"their {len(real)} sources: spread {wide:.2f}"
