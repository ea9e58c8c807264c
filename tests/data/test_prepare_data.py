"""From a configuration to the data of a run."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from fedlt.data import load_dataset, prepare_data
from fedlt.errors import FedltError


def _data(**changes):
    fields = {
        "dataset": "digits",
        "root": None,
        "imbalance_factor": 20.0,
        "profile": "exponential",
        "split": "final",
        "class_order": "natural",
        "normalisation": "own",
        "options": {},
    }
    return SimpleNamespace(**(fields | changes))


def _partition(**changes):
    fields = {
        "scheme": "dirichlet",
        "variant": "default",
        "dirichlet_alpha": 0.5,
        "num_clients": 8,
        "min_samples": 2,
        "shards_per_client": 2,
        "file": None,
        "uncovered": "refuse",
    }
    return SimpleNamespace(**(fields | changes))


def _exponential(n_max, factor=20):
    return [int(n_max * (1 / factor) ** (c / 9)) for c in range(10)]


def test_final_uses_the_whole_pool_and_the_test_set():
    """digits: 174 images of class 8, of which 50 are for testing, so n_max is 124."""
    data, source = prepare_data(_data(), _partition(), seed=1), load_dataset("digits")
    assert data.class_counts.tolist() == _exponential(124)
    assert len(data.eval_labels) == 500
    np.testing.assert_array_equal(data.eval_images, source.test_images)
    np.testing.assert_array_equal(data.train_images, source.train_images[data.pool_indices])
    np.testing.assert_array_equal(data.train_labels, source.train_labels[data.pool_indices])
    assert data.client_counts.shape == (8, 10)
    np.testing.assert_array_equal(data.client_counts.sum(0), data.class_counts)
    np.testing.assert_array_equal(data.client_counts.sum(1), data.partition.sizes())


def test_tune_holds_a_balanced_part_of_the_pool_out_of_training():
    data, source = prepare_data(_data(split="tune"), _partition(), seed=1), load_dataset("digits")
    assert np.bincount(data.eval_labels).tolist() == [15] * 10
    assert data.class_counts.tolist() == _exponential(124 - 15)
    seen = source.train_images[data.pool_indices].reshape(len(data.pool_indices), -1)
    held = data.eval_images.reshape(150, -1)
    assert not (seen[:, None] == held).all(2).any()


def test_tune_takes_nine_tenths_of_the_largest_class():
    data = prepare_data(
        _data(dataset="synthetic", split="tune", imbalance_factor=10.0), _partition(), seed=1
    )
    assert data.class_counts.tolist() == _exponential(90, 10)
    assert np.bincount(data.eval_labels).tolist() == [10] * 10


def test_the_seed_moves_the_partition_and_nothing_else():
    first, again, other = (prepare_data(_data(), _partition(), seed=seed) for seed in (1, 1, 2))
    assert first.partition.hash() == again.partition.hash() != other.partition.hash()
    np.testing.assert_array_equal(first.pool_indices, other.pool_indices)
    tuned = [prepare_data(_data(split="tune"), _partition(), seed=seed) for seed in (1, 2)]
    np.testing.assert_array_equal(tuned[0].eval_images, tuned[1].eval_images)


def test_shuffled_classes_depend_on_the_seed():
    counts = [
        prepare_data(_data(class_order="shuffled"), _partition(), seed=seed).class_counts.tolist()
        for seed in (1, 2)
    ]
    assert counts[0] != counts[1]
    assert sorted(counts[0]) == sorted(counts[1]) == sorted(_exponential(124))


def test_all_arrays_are_read_only():
    data = prepare_data(_data(), _partition(), seed=1)
    arrays = [value for value in vars(data).values() if isinstance(value, np.ndarray)]
    assert len(arrays) == 8
    assert not any(array.flags.writeable for array in [*arrays, *data.partition.clients])


def test_a_saved_partition_is_used_and_must_fit(tmp_path):
    drawn = prepare_data(_data(), _partition(), seed=1).partition
    drawn.save(tmp_path / "p.json")
    saved = _partition(file=str(tmp_path / "p.json"))
    assert prepare_data(_data(), saved, seed=5).partition.hash() == drawn.hash()
    with pytest.raises(FedltError, match="made for"):
        prepare_data(_data(imbalance_factor=10.0), saved, seed=1)


LONG_TAILED = """
import numpy as np
from dataclasses import replace
from fedlt.data.dataset import dataset_from_arrays

def load(validation=False):
    labels = np.repeat([0, 1, 2], [40, 20, 5])
    images = np.arange(65 * 16).reshape(65, 4, 4).astype(np.uint8)
    data = dataset_from_arrays("lt", images, labels, images, labels, long_tailed=True)
    if not validation:
        return data
    part = {"validation_images": data.test_images[:3], "validation_labels": np.arange(3)}
    return replace(data, **part)
"""


def test_a_pool_with_its_own_long_tail_is_used_as_it_stands(tmp_path):
    path = tmp_path / "lt.py"
    path.write_text(LONG_TAILED)
    spec = {"dataset": f"{path}:load", "imbalance_factor": 1.0}
    final = prepare_data(_data(**spec), _partition(num_clients=3), seed=1)
    assert final.class_counts.tolist() == [40, 20, 5]
    tune = prepare_data(_data(**spec, split="tune"), _partition(num_clients=3), seed=1)
    assert tune.class_counts.tolist() == [36, 18, 4]
    assert np.bincount(tune.eval_labels).tolist() == [4, 2, 1]  # max(1, a tenth)
    own = {"split": "tune", "options": {"validation": True}}
    validated = prepare_data(_data(**spec, **own), _partition(num_clients=3), seed=1)
    assert validated.class_counts.tolist() == [40, 20, 5]
    assert validated.eval_labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("key", "value", "plain"),
    [
        ("profile", "step", "exponential"),
        ("class_order", "shuffled", "natural"),
    ],
)
def test_no_long_tail_is_drawn_from_one_and_none_is_dropped_silently(tmp_path, key, value, plain):
    path = tmp_path / "lt.py"
    path.write_text(LONG_TAILED)
    config = _data(**{"dataset": f"{path}:load", "imbalance_factor": 1.0, key: value})
    with pytest.raises(FedltError, match=f"data.{key}: 'lt' is long-tailed .* must be {plain}"):
        prepare_data(config, _partition(), seed=1)


def test_a_factor_draws_from_a_pool_with_its_own_long_tail(tmp_path):
    """The rarest class has 5: 5, floor(5 / sqrt 5), 5 / 5. A class without images is refused."""
    path = tmp_path / "lt.py"
    path.write_text(LONG_TAILED)
    config = _data(dataset=f"{path}:load", imbalance_factor=5.0)
    data = prepare_data(config, _partition(num_clients=2), seed=1)
    assert data.class_counts.tolist() == [5, 2, 1]
    config = _data(dataset=f"{path}:load", imbalance_factor=20.0)
    with pytest.raises(FedltError, match=r"imbalance_factor: 20 leaves .*; at most 5 here; with"):
        prepare_data(config, _partition(), seed=1)


def test_an_unknown_split_is_refused():
    with pytest.raises(FedltError, match="nearest: 'tune'"):
        prepare_data(_data(split="tun"), _partition(), seed=1)


def test_more_clients_than_images_are_refused():
    with pytest.raises(FedltError, match=r"partition.num_clients: 5000"):
        prepare_data(_data(), _partition(num_clients=5000, min_samples=0), seed=1)
