"""The clients of FedLoGe's CIFAR-100 settings from the real labels, where the data are at hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedlt.config.schema import DataConfig, PartitionConfig
from fedlt.data import prepare_data
from fedlt.data.dataset import dataset_from_arrays

SHARED = Path(__file__).resolve().parents[2] / "../shared/data"
LABELS = SHARED / "cifar100/train.npz"


@pytest.fixture(scope="module")
def source():
    """CIFAR-100's real labels in their official order, with images of one black pixel."""
    if not LABELS.is_file():
        pytest.skip("CIFAR-100 is not beside the checkout")
    with np.load(LABELS) as file:
        labels = file["labels"].astype(np.int64)
    images = np.zeros((len(labels), 1, 1), np.uint8)
    return dataset_from_arrays("labels", images, labels, images[:10_000], labels[:10_000])


@pytest.mark.parametrize(
    ("factor", "alpha", "num_clients", "first", "total", "local_tests"),
    [
        (100, 0.5, 40, [264, 285, 233, 378, 283], 10_847, 8636),
        (100, 0.5, 20, [573, 766, 469, 733, 726], 10_847, 9199),
        (50, 0.5, 20, [557, 682, 644, 784, 649], 12_608, 9261),
    ],
)
def test_real_labels_give_the_client_sizes_of_the_authors_logs(
    source, factor, alpha, num_clients, first, total, local_tests
):
    data = prepare_data(
        DataConfig(imbalance_factor=factor),
        PartitionConfig(
            variant="reference", dirichlet_alpha=alpha, num_clients=num_clients, min_samples=0
        ),
        seed=3407,
        source=source,
    )
    assert data.client_sizes[:5].tolist() == first
    assert data.client_sizes.sum() == total
    assert (10_000 * data.client_counts // total).sum() == local_tests
