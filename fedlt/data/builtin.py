"""Data sets that need no files: digits (scikit-learn) and synthetic."""

from __future__ import annotations

import gzip
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedlt.data.dataset import Dataset, dataset_from_arrays
from fedlt.data.moments import channel_moments
from fedlt.data.splits import hold_out
from fedlt.errors import FedltError
from fedlt.rng import numpy_generator

_DIGITS_TEST_PER_CLASS = 50
_CHUNK = 4096  # images drawn at a time, so that a large set needs little extra memory
_SIGNAL, _NOISE = 24.0, 64.0  # grey levels; a pair of 8 x 8 classes overlaps by about 2 %


def digits() -> Dataset:
    """Return scikit-learn's 1,797 handwritten digits, 8 x 8: 500 for testing, 1,297 for training.

    The 17 grey levels x become (255 x + 8) // 16. The test set has 50 images per class and is the
    same in every run (:func:`fedlt.data.splits.hold_out`). Training classes have 124 to 133 images.
    """
    table = _digits_table()  # (1797, 65): 64 grey levels, and the digit
    grey, labels = table[:, :-1].reshape(-1, 8, 8), table[:, -1]
    images = ((grey * 255 + 8) // 16).astype(np.uint8)
    test, pool = hold_out(labels, 10, _DIGITS_TEST_PER_CLASS)
    return dataset_from_arrays(
        "digits",
        images[pool],
        labels[pool],
        images[test],
        labels[test],
        validation_per_class=15,
    )


def _digits_table() -> NDArray[np.int64]:
    """Return the table of scikit-learn's file, without the second that importing it takes."""
    spec = find_spec("sklearn")
    for folder in () if spec is None else spec.submodule_search_locations or ():
        file = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if file.is_file():
            with gzip.open(file, "rb") as lines:
                text = lines.read()
            return np.array(text.replace(b"\n", b",").strip(b",").split(b","), np.int64).reshape(
                -1, 65
            )
    from sklearn.datasets import load_digits

    raw = load_digits()
    return np.column_stack([raw.data, raw.target]).astype(np.int64)


def synthetic(
    *,
    num_classes: int = 10,
    image_size: int = 8,
    channels: int = 1,
    train_per_class: int = 100,
    test_per_class: int = 50,
) -> Dataset:
    """Return a synthetic data set, the same at every call and for every run seed.

    Each class has one random pattern of 2 x 2 pixel blocks. An image is mid-grey plus its class's
    pattern plus independent pixel noise, rounded and clipped to 0 .. 255.

    Args:
        num_classes: C, at least 2.
        image_size: Height and width in pixels.
        channels: Channels, such as 1 or 3.
        train_per_class: Training images per class.
        test_per_class: Test images per class.

    Raises:
        FedltError: If a number is not a positive integer, or C is 1.
    """
    given = dict(locals())
    for name, value in given.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise FedltError(f"data.options.{name}: must be an integer above 0, got {value!r}")
    if num_classes < 2:
        raise FedltError(f"data.options.num_classes: must be at least 2, got {num_classes}")
    rng = numpy_generator(0, "synthetic", num_classes, image_size, channels)
    half = (image_size + 1) // 2
    blocks = rng.standard_normal((num_classes, channels, half, half))
    patterns = blocks.repeat(2, axis=2).repeat(2, axis=3)[..., :image_size, :image_size]
    labels = np.repeat(np.arange(num_classes, dtype=np.int64), train_per_class)
    test_labels = np.repeat(np.arange(num_classes, dtype=np.int64), test_per_class)
    images = _noisy(patterns, labels, numpy_generator(0, "synthetic-train", train_per_class))
    mean, std = channel_moments(images)
    return Dataset(
        name="synthetic",
        train_images=images,
        train_labels=labels,
        test_images=_noisy(
            patterns, test_labels, numpy_generator(0, "synthetic-test", test_per_class)
        ),
        test_labels=test_labels,
        num_classes=num_classes,
        mean=mean,
        std=std,
        class_names=tuple(map(str, range(num_classes))),
    )


def _noisy(
    patterns: NDArray[np.float64], labels: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Return one image (Ch, H, W) per label: 128 + signal * pattern + noise, as uint8."""
    images = np.empty((len(labels), *patterns.shape[1:]), np.uint8)
    for start in range(0, len(labels), _CHUNK):
        chunk = labels[start : start + _CHUNK]
        noise = rng.standard_normal((len(chunk), *patterns.shape[1:]))
        pixels = 128 + _SIGNAL * patterns[chunk] + _NOISE * noise
        images[start : start + _CHUNK] = np.clip(np.rint(pixels), 0, 255)
    return images
