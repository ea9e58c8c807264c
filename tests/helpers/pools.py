"""A pool of synthetic images for the tiny federation: noisy copies of its rarest classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fedlt.config import Config
from fedlt.data import prepare_data
from fedlt.generators.pool import Pool, save_pool

LEVELS = (0.1, 0.3, 0.5)


def make_pool(config: Config, path: Path, *, classes: int = 2, copies: int = 2) -> Pool:
    """Write a pool for a configuration's data, and return it.

    Args:
        config: Whose data.
        path: The npz file.
        classes: How many of the rarest ones.
        copies: Synthetic images for each source and level.
    """
    data = prepare_data(config.data, config.partition, seed=config.seed)
    rare = np.argsort(data.class_counts, kind="stable")[:classes]
    sources = np.flatnonzero(np.isin(data.train_labels, rare))
    chosen = np.repeat(sources, copies * len(LEVELS))
    levels = np.tile(np.repeat(LEVELS, copies), len(sources))
    noise = np.random.default_rng(0).integers(0, 256, (len(chosen), *data.train_images.shape[1:]))
    weights = levels[:, None, None, None]
    images = weights * data.train_images[chosen] + (1 - weights) * noise
    pool = Pool(
        images.astype(np.uint8), data.train_labels[chosen], levels, data.pool_indices[chosen]
    )
    save_pool(pool, path)
    return pool
