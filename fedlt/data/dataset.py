"""Data set: the class :class:`Dataset`, and a function that makes a data set from NumPy arrays.

A user's own data set is a function that returns a :class:`Dataset`. The configuration names the
function as ``data.dataset: path/to/file.py:function``. Example::

    from fedlt.data.dataset import dataset_from_arrays

    def load(folder="scans"):
        train, test = np.load(f"{folder}/train.npz"), np.load(f"{folder}/test.npz")
        return dataset_from_arrays("scans", train["x"], train["y"], test["x"], test["y"])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedlt.errors import FedltError

_CHUNK = 4096  # images counted at a time, so that statistics need little memory


@dataclass(frozen=True, eq=False)
class Dataset:
    """One image-classification data set: a training pool and a test set.

    All arrays are kept as read-only views. Values are checked on construction.

    Raises:
        FedltError: If a dtype, a shape, a label or a length does not fit.
    """

    name: str
    train_images: NDArray[np.uint8]  # (N, Ch, H, W), H = W: the training pool
    train_labels: NDArray[np.int64]  # (N,), every class at least once
    test_images: NDArray[np.uint8]  # (M, Ch, H, W), balanced or not; never trained on
    test_labels: NDArray[np.int64]  # (M,); classes without a test image are left out of scores
    num_classes: int  # C, at least 2
    mean: tuple[float, ...]  # (Ch,), mean of pixel / 255
    std: tuple[float, ...]  # (Ch,), standard deviation of pixel / 255, above 0
    class_names: tuple[str, ...]  # (C,)
    validation_images: NDArray[np.uint8] | None = None  # (V, Ch, H, W), if the data set has them
    validation_labels: NDArray[np.int64] | None = None  # (V,)
    validation_per_class: int | None = None  # images held out by `tune`; None = a tenth
    long_tailed: bool = False  # True: the pool is long-tailed already and used as it stands

    def __post_init__(self) -> None:
        shape = _check_part(self, "train", None)
        _check_part(self, "test", shape)
        if (self.validation_images is None) != (self.validation_labels is None):
            raise self._error("validation images and labels come together or not at all")
        if self.validation_images is not None:
            _check_part(self, "validation", shape)
        self._check_meta(shape[0])

    def _error(self, text: str) -> FedltError:
        return FedltError(f"data set {self.name!r}: {text}")

    def _check_meta(self, channels: int) -> None:
        if len(self.mean) != channels or len(self.std) != channels:
            raise self._error(f"mean and std need {channels} numbers, one a channel")
        if not all(np.isfinite(self.mean)) or not all(0 < value < np.inf for value in self.std):
            raise self._error(f"mean must be finite and std above 0, got {self.mean}, {self.std}")
        if len(self.class_names) != self.num_classes:
            raise self._error(f"{len(self.class_names)} names for {self.num_classes} classes")
        counts = np.bincount(self.train_labels, minlength=self.num_classes)
        if counts.min() == 0:
            raise self._error(f"class {int(counts.argmin())} has no train image")


def _check_part(data: Dataset, part: str, shape: tuple[int, ...] | None) -> tuple[int, ...]:
    """Return the image shape (Ch, H, W) of a part, after checking and making arrays read-only."""
    images, labels = getattr(data, f"{part}_images"), getattr(data, f"{part}_labels")
    if not isinstance(data.num_classes, int) or data.num_classes < 2:
        raise data._error(f"num_classes must be an integer of at least 2, got {data.num_classes!r}")
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 4:
        raise data._error(f"{part} images must be uint8 (N, Ch, H, W), got {_describe(images)}")
    if not isinstance(labels, np.ndarray) or labels.dtype != np.int64 or labels.ndim != 1:
        raise data._error(f"{part} labels must be int64 (N,), got {_describe(labels)}")
    if len(images) != len(labels) or len(labels) == 0 or images.size == 0:
        raise data._error(f"{len(images)} {part} images and {len(labels)} labels")
    if images.shape[2] != images.shape[3]:
        raise data._error(f"{part} images must be square, got {images.shape[2:]}")
    if shape is not None and images.shape[1:] != shape:
        raise data._error(f"{part} images are {images.shape[1:]}, training images {shape}")
    if labels.min() < 0 or labels.max() >= data.num_classes:
        span = f"{labels.min()}..{labels.max()}"
        raise data._error(f"{part} labels span {span}, not 0..{data.num_classes - 1}")
    object.__setattr__(data, f"{part}_images", read_only(images))
    object.__setattr__(data, f"{part}_labels", read_only(labels))
    size: tuple[int, ...] = images.shape[1:]
    return size


def _describe(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}"
    return type(value).__name__


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    """Return a contiguous read-only view; the given array stays writable."""
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view


def channel_moments(images: NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of pixel / 255 per channel, from exact histograms.

    Args:
        images: uint8 (N, Ch, H, W).

    Returns:
        Mean (Ch,) and standard deviation (Ch,); a constant channel gets standard deviation 1.
    """
    histogram = np.zeros((images.shape[1], 256), np.int64)
    for start in range(0, len(images), _CHUNK):
        for channel, counts in enumerate(histogram):
            part = images[start : start + _CHUNK, channel]
            counts += np.bincount(part.reshape(-1), minlength=256)
    values = np.arange(256) / 255
    weights = histogram / histogram.sum(axis=1, keepdims=True)
    mean = weights @ values
    std = np.sqrt((weights * (values - mean[:, None]) ** 2).sum(axis=1))
    std = np.where(std > 0, std, 1.0)
    return tuple(mean.tolist()), tuple(std.tolist())


def dataset_from_arrays(
    name: str,
    train_images: ArrayLike,
    train_labels: ArrayLike,
    test_images: ArrayLike,
    test_labels: ArrayLike,
    *,
    class_names: Sequence[str] | None = None,
    validation_per_class: int | None = None,
    long_tailed: bool = False,
) -> Dataset:
    """Return a data set made from arrays; mean, deviation and number of classes are computed.

    Args:
        name: Name of the data set.
        train_images: uint8 (N, H, W), (N, H, W, Ch) or (N, Ch, H, W) with 1 or 3 channels.
        train_labels: Integers (N,), classes 0 .. C-1, every class at least once.
        test_images: As ``train_images``.
        test_labels: As ``train_labels``, but a class may have no test image; such a class is
            trained and left out of all scores.
        class_names: (C,); the class numbers if not given.
        validation_per_class: Images per class that ``data.split: tune`` holds out; a tenth of the
            smallest class if not given.
        long_tailed: True: the pool is long-tailed already and is used as it stands.

    Raises:
        FedltError: If an array does not fit.
    """
    labels = _labels(name, "train", train_labels)
    images = _images(name, "train", train_images)
    num_classes = int(labels.max(initial=-1)) + 1
    mean, std = channel_moments(images) if images.size else ((0.0,), (1.0,))
    return Dataset(
        name=name,
        train_images=images,
        train_labels=labels,
        test_images=_images(name, "test", test_images),
        test_labels=_labels(name, "test", test_labels),
        num_classes=num_classes,
        mean=mean,
        std=std,
        class_names=tuple(class_names or map(str, range(num_classes))),
        validation_per_class=validation_per_class,
        long_tailed=long_tailed,
    )


def _labels(name: str, part: str, labels: ArrayLike) -> NDArray[np.int64]:
    array = np.asarray(labels)
    if not np.issubdtype(array.dtype, np.integer) or array.ndim != 1:
        raise FedltError(
            f"data set {name!r}: {part} labels must be integers (N,), got {_describe(array)}"
        )
    return array.astype(np.int64)


def _images(name: str, part: str, images: ArrayLike) -> NDArray[np.uint8]:
    """Return the images as uint8 (N, Ch, H, W)."""
    array = np.asarray(images)
    where = f"data set {name!r}: {part} images"
    if array.dtype != np.uint8 or array.ndim not in (3, 4):
        raise FedltError(f"{where} must be uint8 with 3 or 4 axes, got {_describe(array)}")
    if array.ndim == 3:
        return array[:, None]
    first, last = array.shape[1] in (1, 3), array.shape[3] in (1, 3)
    if first == last:
        raise FedltError(
            f"{where} {array.shape}: cannot tell the channel axis (1 or 3 channels, second or"
            " last axis); build fedlt.data.dataset.Dataset from (N, Ch, H, W) instead"
        )
    return np.ascontiguousarray(array if first else array.transpose(0, 3, 1, 2))
