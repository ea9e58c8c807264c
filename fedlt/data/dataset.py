"""Data set: the class :class:`Dataset`, and a function that makes a data set from NumPy arrays.

A user's own data set is a function that returns a :class:`Dataset`. The configuration names the
function as ``data.dataset: path/to/file.py:function``. Example::

    from fedlt.data.dataset import dataset_from_arrays

    def load(folder="scans"):
        train, test = np.load(f"{folder}/train.npz"), np.load(f"{folder}/test.npz")
        return dataset_from_arrays("scans", train["x"], train["y"], test["x"], test["y"])
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fedlt.data.arrays import IntArray, Pixels, read_only
from fedlt.data.axes import CHANNELS, usable_images
from fedlt.data.labels import numbered_clients, numbered_labels
from fedlt.data.moments import channel_moments, value_span
from fedlt.errors import FedltError

_PARTS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class Dataset:
    """One image-classification data set: a training pool and a test set.

    Images are uint8 or float32 arrays (N, Ch, H, W) of any height and width with 1 to 4 channels.
    Feature vectors (N, d) are float32 arrays (N, d, 1, 1). Arrays may be memory maps, which are
    never read into memory as a whole. All arrays are kept as read-only views. Values are checked on
    construction.

    Raises:
        FedltError: If a dtype, a shape, a label or a length does not fit, or a class has test or
            validation images and no training image.
    """

    name: str
    train_images: Pixels  # (N, Ch, H, W): the training pool
    train_labels: IntArray  # (N,); a class without a training image is marked and not learnt
    test_images: Pixels  # (M, Ch, H, W), balanced or not; never trained on
    test_labels: IntArray  # (M,); classes without a test image are left out of scores
    num_classes: int  # C, at least 2
    mean: tuple[float, ...]  # (Ch,), mean of pixel / 255; of floats, of the value itself
    std: tuple[float, ...]  # (Ch,), standard deviation likewise, above 0
    class_names: tuple[str, ...]  # (C,)
    validation_images: Pixels | None = None  # (V, Ch, H, W), if the data set has them
    validation_labels: IntArray | None = None  # (V,)
    validation_per_class: int | None = None  # images held out by `tune`; None = a tenth
    long_tailed: bool = False  # True: the pool is long-tailed already and used as it stands
    train_clients: IntArray | None = None  # (N,) natural client; -1: nobody's; None: unknown
    validation_clients: IntArray | None = None  # (V,) likewise
    test_clients: IntArray | None = None  # (M,) likewise
    client_names: tuple[str, ...] = ()  # (U,) names of the natural clients; (): none are known
    # validation, test -> client id that no training image has -> its images; {}: not known
    strangers: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    classes_given: bool = False  # True: classes may be without training images, all but one too
    client_hint: str = ""  # how a user gives client ids to this source, in words; "": unknown

    def __post_init__(self) -> None:
        shape = _check_part(self, "train", None)
        _check_part(self, "test", shape)
        if (self.validation_images is None) != (self.validation_labels is None):
            raise self._error("validation images and labels come together or not at all")
        if self.validation_images is not None:
            _check_part(self, "validation", shape)
        self._check_meta(shape[0])
        self._check_clients()

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape (Ch, H, W) of an image; (d, 1, 1) of a feature vector."""
        channels, height, width = self.train_images.shape[1:]
        return channels, height, width

    @property
    def is_features(self) -> bool:
        """Whether the images are feature vectors."""
        return holds_features(self.train_images)

    def _error(self, text: str) -> FedltError:
        return FedltError(f"data set {self.name!r}: {text}")

    def _check_meta(self, channels: int) -> None:
        if len(self.mean) != channels or len(self.std) != channels:
            raise self._error(f"mean and std need {channels} numbers, one a channel")
        if not all(np.isfinite(self.mean)) or not all(0 < value < np.inf for value in self.std):
            raise self._error(f"mean must be finite and std above 0, got {self.mean}, {self.std}")
        if len(self.class_names) != self.num_classes:
            raise self._error(f"{len(self.class_names)} names for {self.num_classes} classes")
        trained = np.bincount(self.train_labels, minlength=self.num_classes)
        if self.classes_given:
            return
        if np.count_nonzero(trained) < 2:
            raise self._error("train images are of one class; two are needed")
        for part in ("test", "validation"):
            labels = getattr(self, f"{part}_labels")
            counts = np.bincount([] if labels is None else labels, minlength=self.num_classes)
            for label in np.flatnonzero((counts > 0) & (trained == 0)):
                raise self._error(
                    f"class {label} ({self.class_names[label]!r}) has {counts[label]} {part} "
                    "images and no train image"
                )

    def _check_clients(self) -> None:
        if self.train_clients is None:
            for part in ("validation", "test"):
                if getattr(self, f"{part}_clients") is not None:
                    raise self._error(f"{part} clients are given, and train clients are not")
            return
        for part in _PARTS:
            clients, labels = (getattr(self, f"{part}_{what}") for what in ("clients", "labels"))
            if clients is None:
                continue
            size = 0 if labels is None else len(labels)
            fits = isinstance(clients, np.ndarray) and clients.dtype == np.int64
            if not fits or clients.shape != (size,):
                raise self._error(
                    f"{part} clients must be int64 ({size},), one an image, got "
                    f"{_describe(clients)}"
                )
            most = len(self.client_names) or int(self.train_clients.max()) + 1
            if size and not (clients.min() >= -1 and clients.max() < most):
                span = f"{clients.min()}..{clients.max()}"
                raise self._error(f"{part} clients span {span}, not -1..{most - 1}")
            object.__setattr__(self, f"{part}_clients", read_only(clients))


def holds_features(images: Any) -> bool:  # noqa: ANN401 (an array, a tensor or rows of a map)
    """Return True for feature vectors: float32 (N, d, 1, 1)."""
    return tuple(images.shape[2:]) == (1, 1) and str(images.dtype).endswith("float32")


def _check_part(data: Dataset, part: str, shape: tuple[int, ...] | None) -> tuple[int, ...]:
    """Return the image shape (Ch, H, W) of a part, after checking and making arrays read-only."""
    images, labels = getattr(data, f"{part}_images"), getattr(data, f"{part}_labels")
    if not isinstance(data.num_classes, int) or data.num_classes < 2:
        raise data._error(f"num_classes must be an integer of at least 2, got {data.num_classes!r}")
    is_array = isinstance(images, np.ndarray) and images.dtype in (np.uint8, np.float32)
    if not is_array or images.ndim != 4:
        raise data._error(
            f"{part} images must be uint8 or float32 (N, Ch, H, W), got {_describe(images)}"
        )
    if not isinstance(labels, np.ndarray) or labels.dtype != np.int64 or labels.ndim != 1:
        raise data._error(f"{part} labels must be int64 (N,), got {_describe(labels)}")
    if len(images) != len(labels) or len(labels) == 0 or images.size == 0:
        raise data._error(f"{len(images)} {part} images and {len(labels)} labels")
    if shape is not None and images.shape[1:] != shape:
        raise data._error(f"{part} images are {images.shape[1:]}, training images {shape}")
    if labels.min() < 0 or labels.max() >= data.num_classes:
        span = f"{labels.min()}..{labels.max()}"
        raise data._error(f"{part} labels span {span}, not 0..{data.num_classes - 1}")
    _check_values(data, part, images)
    object.__setattr__(data, f"{part}_images", read_only(images))
    object.__setattr__(data, f"{part}_labels", read_only(labels))
    size: tuple[int, ...] = images.shape[1:]
    return size


def _check_values(data: Dataset, part: str, images: Pixels) -> None:
    """Refuse a number of channels that no image has, values that are not finite, and two types."""
    if images.dtype != data.train_images.dtype:
        types = f"{part} images are {images.dtype}, training images {data.train_images.dtype}"
        raise data._error(types)
    if not holds_features(images) and images.shape[1] not in CHANNELS:
        raise data._error(f"{part} images have {images.shape[1]} channels; 1 to 4 are possible")
    if images.dtype == np.float32:
        low, high = value_span(images)
        if not (np.isfinite(low) and np.isfinite(high)):
            raise data._error(f"{part} images have a value that is not finite")
        if not holds_features(images) and not (low >= 0 and high <= 1):
            raise data._error(f"{part} images are floats from {low:g} to {high:g}, not in [0, 1]")


def _describe(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}"
    return type(value).__name__


def dataset_from_arrays(
    name: str,
    train_images: ArrayLike,
    train_labels: ArrayLike,
    test_images: ArrayLike,
    test_labels: ArrayLike,
    *,
    validation_images: ArrayLike | None = None,
    validation_labels: ArrayLike | None = None,
    class_names: Sequence[str] | None = None,
    validation_per_class: int | None = None,
    long_tailed: bool = False,
    train_clients: ArrayLike | None = None,
    validation_clients: ArrayLike | None = None,
    test_clients: ArrayLike | None = None,
    channels_last: bool | None = None,
) -> Dataset:
    """Return a data set made from arrays; mean, deviation and number of classes are computed.

    Arrays that are memory maps stay maps.

    Args:
        name: Name of the data set.
        train_images: uint8, or floats in [0, 1]: (N, H, W), (N, H, W, Ch) or (N, Ch, H, W) with 1
            to 4 channels; or float features (N, d) of any values.
        train_labels: (N,) or (N, 1), integers or texts. Classes are numbered 0 .. C-1 in ascending
            order, and the labels become their names.
        test_images: As ``train_images``.
        test_labels: As ``train_labels``; every class has a training image. A class without a test
            image is trained and left out of all scores.
        validation_images: The data set's own validation part, or None.
        validation_labels: Its labels.
        class_names: (C,) names: of the classes 0 .. C-1, or the texts among ``train_labels`` in the
            order in which classes are numbered. A named class may have no image.
        validation_per_class: Images per class that ``data.split: tune`` holds out; a tenth of the
            smallest class if not given.
        long_tailed: True: the pool is long-tailed already and is used as it stands.
        train_clients: (N,) id of the natural client of each image, integers or texts; None: the
            data have no clients of their own.
        validation_clients: Likewise; an id without a training image is nobody's.
        test_clients: Likewise.
        channels_last: Whether the last axis is the channel axis; None: as the sizes tell.

    Raises:
        FedltError: If an array does not fit.
    """
    where = f"data set {name!r}"
    images = {"train": train_images, "validation": validation_images, "test": test_images}
    labels = {"train": train_labels, "validation": validation_labels, "test": test_labels}
    given = {part: one for part, one in labels.items() if one is not None}
    numbered, names = numbered_labels(where, given, class_names)
    pixels = {
        part: usable_images(f"{where}: {part} images", one, channels_last=channels_last)
        for part, one in images.items()
        if one is not None
    }
    train = pixels["train"]
    mean, std = channel_moments(train) if train.size else ((0.0,), (1.0,))
    return Dataset(
        name=name,
        train_images=train,
        train_labels=numbered["train"],
        test_images=pixels["test"],
        test_labels=numbered["test"],
        num_classes=len(names),
        mean=mean,
        std=std,
        class_names=names,
        validation_images=pixels.get("validation"),
        validation_labels=numbered.get("validation"),
        validation_per_class=validation_per_class,
        long_tailed=long_tailed,
        **_clients(where, train_clients, validation=validation_clients, test=test_clients),
    )


def _clients(where: str, train: ArrayLike | None, **others: ArrayLike | None) -> dict[str, Any]:
    """Return the fields of natural clients; {} without clients."""
    given = {part: ids for part, ids in others.items() if ids is not None}
    if train is None:
        for part in given:
            raise FedltError(f"{where}: {part}_clients needs train_clients")
        return {}
    numbers, found, names, strangers = numbered_clients(where, train, given)
    fields: dict[str, Any] = {f"{part}_clients": ids for part, ids in found.items()}
    known = {"train_clients": numbers, "client_names": names, "strangers": strangers}
    return {**fields, **known}
