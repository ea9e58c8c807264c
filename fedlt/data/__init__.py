"""Data sets, long-tail profiles, splits, partitions, batches and augmentation."""

from __future__ import annotations

from fedlt.data.dataset import Dataset, dataset_from_arrays
from fedlt.data.datasets import DATASETS, load_dataset
from fedlt.data.federated import FederatedData, prepare_data
from fedlt.data.partition import Partition

__all__ = [
    "DATASETS",
    "Dataset",
    "FederatedData",
    "Partition",
    "dataset_from_arrays",
    "load_dataset",
    "prepare_data",
]
