"""Partitions by a user's function, and by the partitioners of Flower Datasets."""

from __future__ import annotations

import numpy as np
import pytest

from fedlt.config import PartitionConfig
from fedlt.data import dealing
from fedlt.data.dealing import deal
from fedlt.errors import FedltError

LABELS = np.repeat([0, 1, 2], [60, 30, 10])
FLOWER = "flwr_datasets.partitioner:"
FUNCTIONS = """
import numpy as np

def stripes(labels, num_clients, seed, width=1):
    labels[:] = 0  # a copy: the run's labels stay as they are
    return np.arange(len(labels)) // width % num_clients

def some(labels, num_clients, seed):
    return np.where(labels == 2, -1, labels % num_clients)

def short(labels, num_clients, seed):
    return labels[1:]

def real(labels, num_clients, seed):
    return labels / 2

def far(labels, num_clients, seed):
    return labels + 7

def fails(labels, num_clients, seed):
    return 1 / 0

def two(labels, seed):
    return labels

class Other:
    pass

value = 3
"""


@pytest.fixture
def by(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(FUNCTIONS)

    def run(name, labels=LABELS, users=None, **changes):
        scheme = name if ":" in name else f"{path}:{name}"
        config = PartitionConfig(scheme=scheme, **changes)
        return deal(labels, 3, config, seed=7, users=users)

    return run


def test_a_function_says_who_owns_each_image(by):
    dealt = by("stripes", num_clients=4, options={"width": 5})
    assert dealt.partition.owner().tolist() == [row // 5 % 4 for row in range(100)]
    assert dealt.notes == ()
    assert np.bincount(LABELS).tolist() == [60, 30, 10]


def test_a_function_may_leave_images_to_nobody(by):
    with pytest.raises(FedltError, match="gives 10 of 100 images to no client"):
        by("some", num_clients=4)
    dealt = by("some", num_clients=4, uncovered="drop")
    assert dealt.partition.sizes().tolist() == [60, 30, 0, 0]
    assert "10 of 100 training images belong to no client and are not used" in dealt.notes


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("short", {}, r"returns int64 \(99,\); expected the client number of each of the 100"),
        ("real", {}, r"returns float64 \(100,\)"),
        ("far", {}, "gives image 0 to client 7; clients are 0 to 4, and -1 is nobody"),
        ("fails", {}, "fails: ZeroDivisionError: division by zero .*line 21"),
        ("two", {}, "has no argument 'num_clients'; it needs labels, num_clients, seed"),
        ("stripes", {"options": {"with": 2}}, "has no 'with'; nearest: 'width'"),
        ("stripe", {}, "has no 'stripe'; nearest: 'stripes'"),
        ("value", {}, "is not a function"),
        ("Other", {}, "is neither a function nor a partitioner of Flower Datasets"),
    ],
)
def test_a_wrong_function_is_named(by, name, changes, message):
    with pytest.raises(FedltError, match=message) as caught:
        by(name, num_clients=5, **changes)
    assert str(caught.value).startswith("partition.")
    assert "\n" not in str(caught.value)


def test_a_partitioner_gives_the_rows_that_it_gives_alone(by):
    """The same class, driven by hand with the same arguments on a table of rows and labels."""
    from datasets import Dataset
    from flwr_datasets.partitioner import DirichletPartitioner

    alone = DirichletPartitioner(
        num_partitions=4, partition_by="label", alpha=0.5, min_partition_size=3, seed=7
    )
    alone.dataset = Dataset.from_dict({"row": range(100), "label": LABELS})
    options = {"alpha": 0.5, "min_partition_size": 3}
    dealt = by(f"{FLOWER}DirichletPartitioner", num_clients=4, options=options)
    for cid in range(4):
        assert dealt.partition.clients[cid].tolist() == sorted(alone.load_partition(cid)["row"])
    assert dealt.notes == ()


def test_partitioners_that_count_for_themselves(by):
    """Sizes 30 and 20 of 100 images: 50 are in no part. The users make three clients."""
    sizes = {"partition_sizes": [30, 20]}
    with pytest.raises(FedltError, match="gives 50 of 100 images to no client"):
        by(f"{FLOWER}SizePartitioner", options=sizes)
    dealt = by(f"{FLOWER}SizePartitioner", options=sizes, uncovered="drop")
    assert dealt.partition.sizes().tolist() == [30, 20]
    assert dealt.notes[0] == "2 clients by SizePartitioner; partition.num_clients is not read"
    users = np.arange(100) % 3
    dealt = by(f"{FLOWER}NaturalIdPartitioner", users=users, options={"partition_by": "client"})
    assert dealt.partition.sizes().tolist() == [34, 33, 33]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("DirichletPartitioner", {}, "needs 'alpha'"),
        ("DirichletPartitioner", {"alfa": 1}, "has no 'alfa'; nearest: 'alpha'"),
        ("DirichletPartitioner", {"num_partitions": 3}, "num_partitions: is partition.num_clients"),
        ("DirichletPartitioner", {"alpha": -1.0}, "fails: Alpha values should be"),
        (
            "DirichletPartitoner",
            {},
            "has no 'DirichletPartitoner'; nearest: 'DirichletPartitioner'",
        ),
        ("NaturalIdPartitioner", {"partition_by": "client"}, "fails: "),
        ("VerticalEvenPartitioner", {}, "divides columns, not images"),
    ],
)
def test_a_wrong_partitioner_is_named(by, name, options, message):
    with pytest.raises(FedltError, match=message) as caught:
        by(f"{FLOWER}{name}", num_clients=3, options=options)
    assert "\n" not in str(caught.value)


def test_an_image_given_out_twice_is_refused(by, tmp_path):
    (tmp_path / "twice.py").write_text("""
from flwr_datasets.partitioner import IidPartitioner

class Twice(IidPartitioner):
    def load_partition(self, partition_id):
        return self.dataset.select([5, partition_id + 6])
""")
    with pytest.raises(FedltError, match="gives image 5 out more than once"):
        by(f"{tmp_path / 'twice.py'}:Twice", num_clients=3)


def test_without_flower_datasets_one_line_says_what_to_install(by, monkeypatch):
    monkeypatch.setattr(dealing, "find_spec", lambda name: None)
    with pytest.raises(FedltError, match=r"pip install 'fedlt\[flwr-datasets\]'"):
        by(f"{FLOWER}DirichletPartitioner", options={"alpha": 0.5})
