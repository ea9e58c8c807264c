"""Fashion-MNIST, CIFAR, MNIST, KMNIST, EMNIST and SVHN through torchvision's own readers.

The folder of the files is ``data.root``, else ``$FEDLT_DATA``, else ``~/.cache/fedlt/data``, in
torchvision's layout. Missing files are downloaded, first into a temporary folder, so that a failed
download leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import io
import os
import socket
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlt.data.arrays import Pixels
from fedlt.data.dataset import Dataset
from fedlt.data.moments import channel_moments
from fedlt.errors import FedltError, nearest

_TIMEOUT = 30.0  # seconds without an answer before a download counts as failed


@dataclass(frozen=True)
class _Source:
    reader: str  # class in torchvision.datasets
    mean: tuple[float, ...] = ()  # (Ch,), constants that papers commonly use; (): computed
    std: tuple[float, ...] = ()  # (Ch,)
    validation_per_class: int | None = None  # a tenth of the pool; None: of its smallest class
    train: Mapping[str, Any] = field(default_factory=lambda: {"train": True})  # reader's arguments
    test: Mapping[str, Any] = field(default_factory=lambda: {"train": False})

    def downloads(self) -> list[Mapping[str, Any]]:
        """Return arguments with which the reader downloads everything."""
        return [self.train] if "train" in self.train else [self.train, self.test]


_SOURCES = {
    "fashion_mnist": _Source("FashionMNIST", (0.2860,), (0.3530,), 600),
    "cifar10": _Source("CIFAR10", (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010), 500),
    "cifar100": _Source("CIFAR100", (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762), 50),
    "mnist": _Source("MNIST"),
    "kmnist": _Source("KMNIST"),
}
EMNIST_SPLITS = ("byclass", "bymerge", "balanced", "letters", "digits", "mnist")


def data_root(root: str | None) -> Path:
    """Return the folder of the data sets: ``root``, ``$FEDLT_DATA`` or ``~/.cache/fedlt/data``."""
    given = root or os.environ.get("FEDLT_DATA") or "~/.cache/fedlt/data"
    return Path(given).expanduser()


def torchvision_dataset(name: str, *, root: str | None = None) -> Dataset:
    """Return ``fashion_mnist``, ``cifar10``, ``cifar100``, ``mnist`` or ``kmnist``.

    Args:
        name: Name of the data set.
        root: Folder of the files; see :func:`data_root`.

    Raises:
        FedltError: If the files are missing and cannot be downloaded, or are damaged.
    """
    return _dataset(name, _SOURCES[name], data_root(root))


def emnist(*, split: str = "balanced", root: str | None = None) -> Dataset:
    """EMNIST, read from data.root; option split: balanced, byclass, bymerge, letters, digits.

    The files hold images transposed, and the labels of ``letters`` begin at 1; both are put right.

    Args:
        split: A name of :data:`EMNIST_SPLITS`.
        root: Folder of the files; see :func:`data_root`.

    Raises:
        FedltError: If there is no such split, or the files are missing and cannot be downloaded.
    """
    if split not in EMNIST_SPLITS:
        known = nearest(str(split), EMNIST_SPLITS)
        raise FedltError(f"data.options.split: unknown {split!r}{known}")
    train, test = ({"split": split, "train": is_train} for is_train in (True, False))
    data = _dataset("emnist", _Source("EMNIST", train=train, test=test), data_root(root))
    return replace(
        data,
        name=f"emnist_{split}",
        train_images=_transposed(data.train_images),
        test_images=_transposed(data.test_images),
    )


def _transposed(images: Pixels) -> NDArray[np.uint8]:
    return np.ascontiguousarray(images.transpose(0, 1, 3, 2), np.uint8)


def svhn(*, root: str | None = None) -> Dataset:
    """SVHN's cropped house numbers, 73,257 for training; read from data.root.

    Args:
        root: Folder of the files; see :func:`data_root`.

    Raises:
        FedltError: If the files are missing and cannot be downloaded, or are damaged.
    """
    source = _Source("SVHN", train={"split": "train"}, test={"split": "test"})
    return _dataset("svhn", source, data_root(root))


def _dataset(name: str, source: _Source, folder: Path) -> Dataset:
    try:
        train, test = _read(source, folder)
    except Exception as error:
        if "not found" not in str(error):  # torchvision's word for missing or a wrong md5
            raise FedltError(
                f"data.root: the files of {name} in {str(folder)!r} are damaged, remove them"
                f" ({_line(error)})"
            ) from error
        _download(name, source, folder)
        train, test = _read(source, folder)
    images = _images(train.data)
    mean, std = (source.mean, source.std) if source.mean else channel_moments(images)
    classes, labels, test_labels = _classes(train, test)
    return Dataset(
        name=name,
        train_images=images,
        train_labels=labels,
        test_images=_images(test.data),
        test_labels=test_labels,
        num_classes=len(classes),
        mean=mean,
        std=std,
        class_names=classes,
        validation_per_class=source.validation_per_class,
    )


def _read(source: _Source, folder: Path) -> tuple[Any, Any]:
    """Return torchvision's training set and test set, read from the folder, not downloaded."""
    import torchvision

    reader = getattr(torchvision.datasets, source.reader)
    return reader(str(folder), **source.train), reader(str(folder), **source.test)


def _classes(
    train: Any,  # noqa: ANN401 (torchvision's data sets)
    test: Any,  # noqa: ANN401
) -> tuple[tuple[str, ...], NDArray[np.int64], NDArray[np.int64]]:
    """Return names of the classes, and labels of both parts from 0."""
    names = getattr(train, "classes", [str(digit) for digit in range(10)])
    labels, test_labels = (
        np.asarray(part.targets if hasattr(part, "targets") else part.labels, np.int64)
        for part in (train, test)
    )
    skipped = int(names[0] == "N/A")  # EMNIST's letters
    return tuple(names[skipped:]), labels - skipped, test_labels - skipped


def _images(data: Any) -> NDArray[np.uint8]:  # noqa: ANN401 (a tensor or an array)
    """Return images (N, H, W), (N, H, W, Ch) or (N, Ch, H, W) as uint8 (N, Ch, H, W)."""
    array = np.asarray(data)
    if array.ndim == 3:
        array = array[:, None]
    elif array.shape[1] != 3:
        array = array.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(array)


def _download(name: str, source: _Source, folder: Path) -> None:
    """Download into a temporary folder beside the target, then move the files into place."""
    import torchvision

    reader = getattr(torchvision.datasets, source.reader)
    existed = folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=folder) as part, _quiet():
            for arguments in source.downloads():
                reader(part, **arguments, download=True)
            _move(Path(part), folder)
    except Exception as error:
        if not existed:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise FedltError(
            f"data.root: {name} is not in {str(folder)!r} and cannot be downloaded"
            f" ({_line(error)}); set data.root or FEDLT_DATA to a folder that holds torchvision's"
            " files of it, or go online once"
        ) from error


def _move(part: Path, folder: Path) -> None:
    """Move all unpacked files into the folder, each atomically; archives are not moved."""
    for path in sorted(part.rglob("*")):
        target = folder / path.relative_to(part)
        if path.is_dir():
            target.mkdir(exist_ok=True)
        elif path.suffix not in (".gz", ".zip"):
            path.replace(target)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:120]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Inside the block, hide torchvision's progress output and limit the wait for a connection."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        socket.setdefaulttimeout(before)
