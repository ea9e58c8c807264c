"""Fashion-MNIST, CIFAR-10 and CIFAR-100 through torchvision's own readers.

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
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlt.data.dataset import Dataset
from fedlt.errors import FedltError

_TIMEOUT = 30.0  # seconds without an answer before a download counts as failed


@dataclass(frozen=True)
class _Source:
    reader: str  # class in torchvision.datasets
    mean: tuple[float, ...]  # (Ch,), the constants that papers commonly use
    std: tuple[float, ...]  # (Ch,)
    validation_per_class: int  # a tenth of the pool


_SOURCES = {
    "fashion_mnist": _Source("FashionMNIST", (0.2860,), (0.3530,), 600),
    "cifar10": _Source("CIFAR10", (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010), 500),
    "cifar100": _Source("CIFAR100", (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762), 50),
}


def data_root(root: str | None) -> Path:
    """Return the folder of the data sets: ``root``, ``$FEDLT_DATA`` or ``~/.cache/fedlt/data``."""
    given = root or os.environ.get("FEDLT_DATA") or "~/.cache/fedlt/data"
    return Path(given).expanduser()


def torchvision_dataset(name: str, *, root: str | None = None) -> Dataset:
    """Return ``fashion_mnist``, ``cifar10`` or ``cifar100``.

    Args:
        name: Name of the data set.
        root: Folder of the files; see :func:`data_root`.

    Raises:
        FedltError: If the files are missing and cannot be downloaded, or are damaged.
    """
    source, folder = _SOURCES[name], data_root(root)
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
    return Dataset(
        name=name,
        train_images=_images(train.data),
        train_labels=np.asarray(train.targets, np.int64),
        test_images=_images(test.data),
        test_labels=np.asarray(test.targets, np.int64),
        num_classes=len(train.classes),
        mean=source.mean,
        std=source.std,
        class_names=tuple(train.classes),
        validation_per_class=source.validation_per_class,
    )


def _read(source: _Source, folder: Path) -> tuple[Any, Any]:
    """Return torchvision's training set and test set, read from the folder, not downloaded."""
    import torchvision

    reader = getattr(torchvision.datasets, source.reader)
    return reader(str(folder), train=True), reader(str(folder), train=False)


def _images(data: Any) -> NDArray[np.uint8]:  # noqa: ANN401 (a tensor or an array)
    """Return torchvision's images (N, H, W) or (N, H, W, Ch) as uint8 (N, Ch, H, W)."""
    array = np.asarray(data)
    return np.ascontiguousarray(array[:, None] if array.ndim == 3 else array.transpose(0, 3, 1, 2))


def _download(name: str, source: _Source, folder: Path) -> None:
    """Download into a temporary folder beside the target, then move the files into place."""
    import torchvision

    reader = getattr(torchvision.datasets, source.reader)
    existed = folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=folder) as part, _quiet():
            reader(part, train=True, download=True)
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
        elif path.suffix != ".gz":
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
