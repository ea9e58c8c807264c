"""``LongTailPartitioner`` under the real package, on a data set in memory."""

from __future__ import annotations

import importlib
import sys

import numpy as np
import pytest

pytest.importorskip("flwr_datasets", reason="needs fedlt[flwr-datasets]")

from datasets import ClassLabel, Dataset, Features, Value

from fedlt.config import DataConfig, PartitionConfig
from fedlt.data import prepare_data
from fedlt.data.datasets import load_dataset
from fedlt.data.flower_datasets import LongTailPartitioner
from fedlt.errors import FedltError


def table(labels):
    names = ClassLabel(names=[f"digit {c}" for c in range(10)])
    features = Features({"row": Value("int64"), "label": names})
    return Dataset.from_dict({"row": np.arange(len(labels)), "label": labels}, features=features)


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


@pytest.mark.parametrize(
    "changes", [{}, {"profile": "step"}, {"class_order": "shuffled", "seed": 3}]
)
def test_its_parts_are_the_images_of_a_run(digits, changes):
    seed = changes.get("seed", 1)
    own = {key: value for key, value in changes.items() if key != "seed"}
    data = prepare_data(
        DataConfig(imbalance_factor=20.0, **own),
        PartitionConfig(num_clients=7, dirichlet_alpha=0.3, min_samples=4),
        seed=seed,
        source=digits,
    )
    partitioner = LongTailPartitioner(
        7, imbalance_factor=20, dirichlet_alpha=0.3, min_samples=4, **changes
    )
    partitioner.dataset = table(digits.train_labels)
    assert partitioner.num_partitions == 7
    for cid in range(7):
        rows = data.pool_indices[data.partition.clients[cid]]
        part = partitioner.load_partition(cid)
        assert part["row"] == rows.tolist()
        assert part["label"] == digits.train_labels[rows].tolist()


def test_it_divides_a_federated_dataset(digits, monkeypatch):
    """The package loads by name from a hub; here its loader returns the table in memory."""
    from datasets import DatasetDict
    from flwr_datasets import FederatedDataset, federated_dataset

    whole = DatasetDict({"train": table(digits.train_labels)})
    monkeypatch.setattr(federated_dataset.datasets, "load_dataset", lambda *a, **k: whole)
    partitioner = LongTailPartitioner(num_partitions=5, imbalance_factor=10)
    federation = FederatedDataset(
        dataset="mnist", partitioners={"train": partitioner}, shuffle=False
    )
    sizes = [len(federation.load_partition(cid)) for cid in range(5)]
    assert sum(sizes) == sum(int(124 * 10 ** (-c / 9)) for c in range(10))


def test_labels_of_any_kind_are_numbered_in_order():
    partitioner = LongTailPartitioner(2, "animal", imbalance_factor=4)
    partitioner.dataset = Dataset.from_dict({"animal": ["cat", "bee", "ant"] * 16})
    counts = {"ant": 0, "bee": 0, "cat": 0}
    for cid in range(2):
        for name in partitioner.load_partition(cid)["animal"]:
            counts[name] += 1
    assert counts == {"ant": 16, "bee": 8, "cat": 4}


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="num_clients"):
        LongTailPartitioner(0)
    partitioner = LongTailPartitioner(2, "lable")
    partitioner.dataset = table(np.arange(10))
    with pytest.raises(FedltError, match="no column 'lable'; nearest: 'label'"):
        partitioner.load_partition(0)
    with pytest.raises(FedltError, match=r"partition_id: 2 is not in 0 .. 1"):
        partitioner.load_partition(2)


def test_without_the_package_one_line_says_what_to_install(monkeypatch):
    name = "fedlt.data.flower_datasets"
    monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "flwr_datasets.partitioner", None)
    with pytest.raises(FedltError, match=r"needs Flower Datasets .*pip install 'fedlt\[flwr-data"):
        importlib.import_module(name)
