"""Arrays as users have them: labels, sizes, channels, floats, clients, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedlt.data import dataset_from_arrays, prepare_data
from fedlt.data.augment import augment, normalize
from fedlt.data.dataset import Dataset
from fedlt.data.longtail import long_tail
from fedlt.data.moments import channel_moments
from fedlt.data.shots import shot_groups
from fedlt.data.splits import validation_sizes
from fedlt.errors import FedltError

SIX = np.arange(36) % 6


def pixels(*shape, count=36, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def made(images, labels, test_labels=None, **more):
    tests = labels if test_labels is None else test_labels
    shown = np.resize(images, (len(tests), *images.shape[1:]))
    return dataset_from_arrays("mine", images, labels, shown, tests, **more)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((12, 12), (1, 12, 12)),
        ((12, 20), (1, 12, 20)),
        ((12, 20, 3), (3, 12, 20)),
        ((2, 12, 12), (2, 12, 12)),
        ((12, 12, 2), (2, 12, 12)),
        ((12, 12, 4), (4, 12, 12)),
        ((4, 12, 3), (3, 4, 12)),  # 3 channels before 4
        ((2, 2), (1, 2, 2)),
    ],
)
def test_any_size_and_one_to_four_channels(shape, expected):
    images = pixels(*shape)
    data = made(images, SIX)
    assert data.image_shape == expected
    assert data.train_images.sum(dtype=np.int64) == images.sum(dtype=np.int64)


def test_an_axis_that_cannot_be_told_is_said_by_the_user():
    images = pixels(3, 12, 3)
    with pytest.raises(FedltError, match="say channels_last=True or channels_last=False"):
        made(images, SIX)
    last = made(images, SIX, channels_last=True)
    np.testing.assert_array_equal(last.train_images, np.moveaxis(images, -1, 1))
    np.testing.assert_array_equal(made(images, SIX, channels_last=False).train_images, images)


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (np.array([0, 1, 3, 4, 7])[np.arange(36) % 5], ("0", "1", "3", "4", "7")),
        (1 + SIX, ("1", "2", "3", "4", "5", "6")),
        (np.array(["cat", "dog", "eel"])[np.arange(36) % 3], ("cat", "dog", "eel")),
        (np.array([b"a", b"b"])[np.arange(36) % 2], ("a", "b")),
        (np.array(["a", "b"], object)[np.arange(36) % 2], ("a", "b")),
        (SIX[:, None].astype(np.uint8), ("0", "1", "2", "3", "4", "5")),
        (np.arange(36) % 2 == 1, ("False", "True")),
        (torch.arange(36) % 3, ("0", "1", "2")),
    ],
)
def test_labels_of_any_kind_are_numbered_and_keep_their_names(labels, names):
    data = made(pixels(4, 4), labels)
    assert (data.class_names, data.num_classes) == (names, len(names))
    expected = [names.index(text) for text in map(_text, np.asarray(labels).reshape(-1).tolist())]
    assert data.train_labels.tolist() == data.test_labels.tolist() == expected


def _text(value):
    return value.decode() if isinstance(value, bytes) else str(value)


def test_given_names_decide_the_order_and_may_be_more_than_the_data_hold():
    texts = np.array(["cat", "dog"])[np.arange(36) % 2]
    data = made(pixels(4, 4), texts, class_names=["dog", "yak", "cat"])
    assert data.class_names == ("dog", "yak", "cat")
    assert data.train_labels[:2].tolist() == [2, 0]
    with pytest.raises(FedltError, match="no class 'cat'; nearest: 'cats'"):
        made(pixels(4, 4), texts, class_names=["cats", "dog"])
    assert made(pixels(4, 4), 1 + SIX % 2, class_names=["a", "b"]).train_labels.max() == 1
    with pytest.raises(FedltError, match="2 class_names, but labels are 0 to 5"):
        made(pixels(4, 4), SIX, class_names=["a", "b"])


@pytest.mark.parametrize(
    ("labels", "tests", "message"),
    [
        (SIX, np.array([0, 6]), "class 6 .'6'. has 1 test images and no train image"),
        (np.array(["a", "b"])[SIX % 2], np.array(["a", "c"]), "class 2 .'c'. has 1 test"),
        (SIX, np.array(["0"]), "numbers in one part and texts in another: train int64, test <U1"),
        (SIX - 1, SIX, "a label is -1; leave images without a class out"),
        (np.array([["a", 1]] * 18, object).reshape(-1), SIX, "different kinds|texts in another"),
    ],
)
def test_labels_that_cannot_be_learnt_are_refused(labels, tests, message):
    with pytest.raises(FedltError, match=message) as caught:
        made(pixels(4, 4), labels, tests)
    assert "\n" not in str(caught.value)


# ---- floats


def test_floats_are_kept_and_normalised_without_a_division_by_255():
    images = np.random.default_rng(1).random((36, 3, 4, 5))
    data = made(images, SIX)
    assert data.train_images.dtype == np.float32
    np.testing.assert_allclose(data.mean, images.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(data.std, images.std((0, 2, 3)), rtol=1e-6)
    mean, std = (torch.tensor(value) for value in (data.mean, data.std))
    given = torch.from_numpy(data.train_images.copy())
    found = normalize(given, mean, std).numpy()
    expected = (images - images.mean((0, 2, 3), keepdims=True)) / images.std(
        (0, 2, 3), keepdims=True
    )
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert torch.equal(given, torch.from_numpy(data.train_images.copy()))  # not written


def test_pixels_and_the_same_pixels_as_floats_are_normalised_alike():
    images = pixels(3, 6, 5)
    both = [made(one, SIX) for one in (images, (images / 255).astype(np.float32))]
    np.testing.assert_allclose(both[0].mean, both[1].mean, rtol=1e-6)
    found = [
        normalize(
            torch.from_numpy(one.train_images.copy()),
            torch.tensor(one.mean, dtype=torch.float32),
            torch.tensor(one.std, dtype=torch.float32),
        )
        for one in both
    ]
    torch.testing.assert_close(*found, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (pixels(4, 4).astype(np.float32), "floats from 0 to 255.*divide them by 255 or give uint8"),
        (pixels(4, 4) / 255 - 0.5, r"floats from -0.5 to 0.5, where \[0, 1\] .*; scale them"),
        (np.full((36, 4, 4), np.nan), "floats from nan to nan"),
        (pixels(4, 4).astype(np.int64), r"got int64 \(36, 4, 4\); pixels .* need .astype"),
        (pixels(4, 4) > 9, "255 [*] images.astype"),
        (pixels(16), r"or 2 as float features, got uint8 \(36, 16\); flat images need reshape"),
        ([np.zeros((4, 4)), np.zeros((4, 5))], "are not of one size"),
    ],
)
def test_values_that_are_no_pixels_are_refused_with_a_repair(images, message):
    with pytest.raises(FedltError, match=message) as caught:
        dataset_from_arrays("mine", images, SIX, images, SIX)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["crop", "crop_flip"])
def test_floats_are_cropped_and_flipped_as_pixels_are(scheme):
    """The same draws move the same values: floats are pixels / 255, also of 6 x 9 images."""
    images = torch.from_numpy(pixels(3, 6, 9))
    moved = [
        augment(given, scheme, torch.Generator().manual_seed(3)) for given in (images, images / 255)
    ]
    torch.testing.assert_close(moved[0] / 255, moved[1])
    assert not torch.equal(moved[0], images)


def test_moments_of_floats_are_exact_over_many_chunks(monkeypatch):
    monkeypatch.setattr("fedlt.data.moments._CHUNK", 40)
    images = (1000 + np.random.default_rng(0).random((50, 2, 3, 2))).astype(np.float32)
    mean, std = channel_moments(images)
    np.testing.assert_allclose(mean, images.astype(float).mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std, images.astype(float).std((0, 2, 3)), rtol=1e-9)


def test_features_are_vectors_of_any_values():
    vectors = np.random.default_rng(0).normal(0, 9, (36, 7))
    data = made(vectors, SIX)
    assert (data.image_shape, data.is_features) == ((7, 1, 1), True)
    np.testing.assert_array_equal(data.train_images[:, :, 0, 0], vectors.astype(np.float32))
    vectors[0, 0] = np.inf
    with pytest.raises(FedltError, match="a value that is not finite"):
        made(vectors, SIX)


# ---- clients


def test_client_ids_are_numbered_and_keep_their_names():
    ids = np.array(["b", "a", "c"])[np.arange(36) % 3]
    tests = np.array(["c", "nobody", "a", *"b" * 33])
    data = made(pixels(4, 4), SIX, train_clients=ids, test_clients=tests)
    assert data.client_names == ("a", "b", "c")
    assert data.train_clients[:3].tolist() == [1, 0, 2]
    assert data.test_clients[:4].tolist() == [2, -1, 0, 1]
    numbers = made(pixels(4, 4), SIX, train_clients=100 + 7 * (SIX[:, None] % 2))
    assert numbers.client_names == ("100", "107")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"test_clients": SIX}, "test_clients needs train_clients"),
        ({"train_clients": SIX[:5]}, r"train clients must be int64 \(36,\), one an image, got"),
        ({"train_clients": SIX, "test_clients": SIX.astype(str)}, "test clients are <U21, train"),
        ({"train_clients": SIX / 2}, "train clients must be integers or texts"),
    ],
)
def test_clients_that_do_not_fit_are_refused(fields, message):
    with pytest.raises(FedltError, match=message):
        made(pixels(4, 4), SIX, **fields)


# ---- classes without images


def test_a_class_without_training_images_has_no_part_in_tails_groups_and_splits():
    """Classes 0, 2, 3 have 12, 6 and 6 images, class 1 none: all as with three classes."""
    labels = np.repeat([0, 2, 3], [12, 6, 6])
    ranks = np.repeat([0, 1, 2], [12, 6, 6])
    options = {"imbalance_factor": 3, "profile": "exponential", "class_order": "natural", "seed": 1}
    assert np.array_equal(long_tail(labels, 4, **options), long_tail(ranks, 3, **options))
    groups = shot_groups([300, 0, 90, 5], scheme="count")
    assert (groups.many, groups.medium, groups.few) == ((0,), (2,), (3,))
    assert shot_groups([300, 0, 90, 5], scheme="rank").few == (3,)
    sizes = validation_sizes(np.array([50, 0, 30]), None, long_tailed=False)
    assert sizes.tolist() == [3, 0, 3]


def test_a_class_without_training_images_is_told(config_of):
    images, labels = pixels(1, 4, 4), np.array([0, 2, 3])[np.arange(36) % 3]
    source = Dataset(
        "mine", images, labels, images, labels, 4, (0.5,), (0.2,), ("ant", "bee", "cat", "dog")
    )
    for split in ("final", "tune"):
        config = config_of(data={"split": split}, partition={"num_clients": 2})
        data = prepare_data(config.data, config.partition, seed=1, source=source)
        assert data.class_counts[1] == 0
        assert data.missing_note().startswith("1 of 4 classes has no training image (bee)")
        assert data.note() == ""


def test_imagenets_moments_are_for_three_channels(config_of):
    config = config_of(data={"normalisation": "imagenet"}, partition={"num_clients": 2})

    def mean_of(images):
        source = made(images, SIX)
        return prepare_data(config.data, config.partition, seed=1, source=source).mean

    assert mean_of(pixels(3, 4, 5)) == (0.485, 0.456, 0.406)
    with pytest.raises(FedltError, match="3 channels; 'mine' has images of 1 channels"):
        mean_of(pixels(4, 5))
    with pytest.raises(FedltError, match="'mine' has features"):
        mean_of(np.ones((36, 3)) * SIX[:, None])


@pytest.fixture
def config_of():
    from fedlt.config import Config

    def make(**sections):
        return Config.model_validate({"name": "any", "rounds": 1, **sections})

    return make
