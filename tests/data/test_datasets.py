"""Data sets: the built-in ones without files, a user's own, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from fedlt.data.dataset import Dataset, channel_moments
from fedlt.data.datasets import DATASETS, dataset_from_arrays, load_dataset
from fedlt.errors import FedltError


def _arrays(shape=(6, 4, 4), classes=3):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, shape, dtype=np.uint8), np.arange(shape[0]) % classes


def _dataset(**changes):
    images, labels = _arrays((6, 1, 4, 4))
    fields = {
        "name": "mine",
        "train_images": images,
        "train_labels": labels,
        "test_images": images,
        "test_labels": labels,
        "num_classes": 3,
        "mean": (0.5,),
        "std": (0.2,),
        "class_names": ("a", "b", "c"),
    }
    return Dataset(**(fields | changes))


def test_digits_grey_levels_are_rounded_exactly():
    """x / 16 * 255 rounded half up: 0, 16 (15.94), 32 (31.88), ..., 128 (127.5), ..., 255."""
    data = load_dataset("digits")
    expected = [0, 16, 32, 48, 64, 80, 96, 112, 128, 143, 159, 175, 191, 207, 223, 239, 255]
    assert sorted(np.unique(data.train_images)) == expected


def test_digits_split_is_fixed_stratified_and_loses_nothing():
    data, again = load_dataset("digits"), load_dataset("digits")
    assert np.bincount(data.test_labels).tolist() == [50] * 10
    raw = np.bincount(load_digits().target)
    assert np.bincount(data.train_labels).tolist() == (raw - 50).tolist()
    np.testing.assert_array_equal(data.test_images, again.test_images)
    everything = np.concatenate([data.train_images, data.test_images]).sum(dtype=np.int64)
    levels = (load_digits().images.astype(np.int64) * 255 + 8) // 16
    assert everything == levels.sum()
    assert data.validation_per_class == 15


def test_synthetic_has_the_shapes_asked_for_and_never_changes():
    options = {
        "num_classes": 4,
        "image_size": 9,
        "channels": 3,
        "train_per_class": 7,
        "test_per_class": 2,
    }
    data = load_dataset("synthetic", options=options)
    assert data.train_images.shape == (28, 3, 9, 9)
    assert data.test_images.shape == (8, 3, 9, 9)
    assert np.bincount(data.train_labels).tolist() == [7] * 4
    again = load_dataset("synthetic", options=options)
    np.testing.assert_array_equal(data.train_images, again.train_images)
    assert not np.array_equal(data.train_images[:8], data.test_images)


def test_synthetic_classes_can_be_told_apart_but_not_perfectly():
    data = load_dataset("synthetic")
    pixels = data.train_images.reshape(len(data.train_images), -1).astype(float)
    centres = np.stack([pixels[data.train_labels == c].mean(0) for c in range(10)])
    test = data.test_images.reshape(len(data.test_images), -1).astype(float)
    nearest = ((test[:, None] - centres) ** 2).sum(2).argmin(1)
    assert 0.8 < (nearest == data.test_labels).mean() < 1


@pytest.mark.parametrize("option", [{"channels": 0}, {"num_classes": 1}, {"image_size": "8"}])
def test_synthetic_refuses_bad_options(option):
    with pytest.raises(FedltError, match=f"data.options.{next(iter(option))}"):
        load_dataset("synthetic", options=option)


def test_moments_agree_with_numpy():
    images, _ = _arrays((5000, 3, 4, 4))
    mean, std = channel_moments(images)
    scaled = images / 255
    np.testing.assert_allclose(mean, scaled.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std, scaled.std((0, 2, 3)), rtol=1e-9)


def test_a_constant_channel_gets_standard_deviation_one():
    assert channel_moments(np.full((2, 1, 3, 3), 255, np.uint8)) == ((1.0,), (1.0,))


def test_arrays_of_every_layout_give_the_same_data_set():
    images, labels = _arrays((6, 3, 4, 4))
    first = dataset_from_arrays("mine", images, labels, images, labels)
    last = images.transpose(0, 2, 3, 1)
    second = dataset_from_arrays("mine", last, labels.astype(np.uint8), last, labels.tolist())
    np.testing.assert_array_equal(first.train_images, second.train_images)
    np.testing.assert_array_equal(first.train_labels, second.train_labels)
    assert (first.mean, first.std, first.num_classes) == (second.mean, second.std, 3)
    grey = dataset_from_arrays("mine", images[:, 0], labels, images[:, 0], labels)
    assert grey.train_images.shape == (6, 1, 4, 4)
    assert grey.class_names == ("0", "1", "2")


def test_a_class_may_lack_test_and_validation_images():
    """Labels 0, 2 and 0, 1 of three classes: the data set stays as it is, with three classes."""
    images, _ = _arrays((6, 1, 4, 4))
    data = _dataset(
        test_labels=np.array([0, 2, 2, 2, 0, 2]),
        validation_images=images,
        validation_labels=np.array([0, 1, 1, 1, 0, 1]),
    )
    assert data.num_classes == 3
    assert np.bincount(data.test_labels, minlength=3).tolist() == [2, 0, 4]
    assert np.bincount(data.validation_labels, minlength=3).tolist() == [2, 4, 0]
    made = dataset_from_arrays("mine", images, np.array([0, 1, 2, 0, 1, 2]), images, [1] * 6)
    assert (made.num_classes, set(made.test_labels.tolist())) == (3, {1})


def test_arrays_are_read_only_and_the_given_ones_are_left_alone():
    images, _ = _arrays((6, 1, 4, 4))
    data = _dataset(train_images=images)
    assert not data.train_images.flags.writeable
    assert not data.train_labels.flags.writeable
    assert images.flags.writeable


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_images": np.zeros((6, 1, 4, 4), np.float64)}, "or float32 .*, got float64"),
        ({"test_images": np.zeros((6, 1, 4, 4), np.float32)}, "test images are float32, training"),
        ({"train_images": [1, 2]}, "got list"),
        ({"train_images": np.zeros((6, 5, 4, 4), np.uint8)}, "5 channels; 1 to 4 are possible"),
        ({"train_labels": np.zeros(6, np.int32)}, "int64 .N,., got int32"),
        ({"train_labels": np.zeros(5, np.int64)}, "6 train images and 5 labels"),
        ({"train_labels": np.array([0, 1, 2, 3, 0, 1])}, "train labels span 0..3, not 0..2"),
        ({"test_labels": np.array([0, 1, 2, -1, 0, 1])}, "test labels span -1..2"),
        ({"train_labels": np.array([0, 1, 1, 1, 0, 1])}, "class 2 .'c'. has 2 test images and no"),
        ({"train_labels": np.zeros(6, np.int64)}, "of one class; two are needed"),
        ({"test_images": np.zeros((6, 1, 5, 5), np.uint8)}, "training images .1, 4, 4."),
        ({"num_classes": 1}, "num_classes"),
        ({"mean": (0.1, 0.2)}, "mean and std need 1"),
        ({"std": (0.0,)}, "std above 0"),
        ({"class_names": ("a",)}, "1 names for 3 classes"),
        ({"validation_labels": np.zeros(1, np.int64)}, "come together"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(changes, message):
    with pytest.raises(FedltError, match=message) as caught:
        _dataset(**changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("shape", "message"),
    [((6, 3, 4, 3), "channel axis"), ((6, 5, 5, 5), "channel axis"), ((6, 4), "3 or 4 axes")],
)
def test_arrays_whose_channels_cannot_be_told_are_refused(shape, message):
    images, labels = _arrays(shape)
    with pytest.raises(FedltError, match=message):
        dataset_from_arrays("mine", images, labels, images, labels)


def test_float_labels_are_refused():
    images, labels = _arrays()
    with pytest.raises(FedltError, match="labels must be integers"):
        dataset_from_arrays("mine", images, labels / 1, images, labels)


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(FedltError, match="nearest: 'cifar10'"):
        load_dataset("cifra10")
    assert set(DATASETS) >= {"digits", "synthetic", "fashion_mnist", "cifar10", "cifar100"}


def test_an_unknown_option_is_answered_with_the_nearest():
    with pytest.raises(FedltError, match="has no 'num_class'; nearest: 'num_classes'"):
        load_dataset("synthetic", options={"num_class": 3})
    with pytest.raises(FedltError, match="'digits' has no 'size'"):
        load_dataset("digits", options={"size": 3})


USER_FILE = """
import numpy as np
from fedlt.data.dataset import dataset_from_arrays

def load(root=None, *, classes):
    labels = np.arange(4 * classes) % classes
    images = np.zeros((len(labels), 4, 4), np.uint8)
    return dataset_from_arrays(f"mine in {root}", images, labels, images, labels)

def fails():
    raise KeyError("x")

def other():
    return 3

def anything(**options):
    return load(classes=options["n"])

number = 3
"""


@pytest.fixture
def user_file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(USER_FILE)
    return path


def test_a_users_function_gets_options_and_root(user_file):
    data = load_dataset(f"{user_file}:load", root="here", options={"classes": 5})
    assert (data.name, data.num_classes) == ("mine in here", 5)
    assert load_dataset(f"{user_file}:load", options={"classes": 5}).name == "mine in None"
    assert load_dataset(f"{user_file}:anything", options={"n": 4}).num_classes == 4


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        ("load", {}, "needs 'classes'"),
        ("load", {"classes": 3, "n": 1}, "has no 'n'"),
        ("load", {"classes": 0}, "fails|must|labels"),
        ("fails", {}, "fails: KeyError"),
        ("other", {}, "must return a fedlt Dataset, got int"),
        ("number", {}, "is not a function"),
        ("lod", {}, "nearest: 'load'"),
    ],
)
def test_a_users_mistake_is_one_line(user_file, function, options, message):
    with pytest.raises(FedltError, match=message) as caught:
        load_dataset(f"{user_file}:{function}", options=options)
    assert "\n" not in str(caught.value)
