"""A partition: which client holds which training images. A value: saved, hashed, drawn, loaded."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlt.errors import FedltError

__all__ = ["Partition", "labels_hash"]

_FORMAT = 1


def labels_hash(labels: NDArray[np.int64]) -> str:
    """Return the SHA-256 of labels (N,), as hex: what a partition must be used with."""
    return hashlib.sha256(np.asarray(labels, "<i8").tobytes()).hexdigest()


@dataclass(frozen=True, eq=False)
class Partition:
    """Every training image belongs to exactly one client; a client may be empty.

    Raises:
        FedltError: If a position is missing, repeated or out of range.
    """

    clients: tuple[NDArray[np.int64], ...]  # by cid: ascending positions in the N images
    num_classes: int  # C
    labels_sha256: str  # labels_hash of the N labels it was drawn for

    def __post_init__(self) -> None:
        clients = tuple(np.sort(np.asarray(part, np.int64).reshape(-1)) for part in self.clients)
        if not clients:
            raise FedltError("partition: no clients")
        joined = np.sort(np.concatenate(clients))
        if not np.array_equal(joined, np.arange(len(joined))):
            raise FedltError("partition: a position is missing, repeated or out of range")
        for part in clients:
            part.flags.writeable = False
        object.__setattr__(self, "clients", clients)

    @classmethod
    def from_owner(
        cls,
        owner: NDArray[np.int64],
        labels: NDArray[np.int64],
        *,
        num_clients: int,
        num_classes: int,
    ) -> Partition:
        """Make a partition from the cid that owns each image, ``owner`` (N,)."""
        order = np.argsort(owner, kind="stable")
        ends = np.cumsum(np.bincount(owner, minlength=num_clients))
        return cls(tuple(np.split(order, ends[:-1])), num_classes, labels_hash(labels))

    @property
    def num_clients(self) -> int:
        """Number of clients, K, empty ones included."""
        return len(self.clients)

    @property
    def num_images(self) -> int:
        """Number of training images, N."""
        return sum(map(len, self.clients))

    def sizes(self) -> NDArray[np.int64]:
        """Return the number of images of each client (K,)."""
        return np.array([len(part) for part in self.clients], np.int64)

    def counts(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the images of each client and class (K, C).

        Args:
            labels: (N,) classes of the training images.

        Raises:
            FedltError: If the partition was drawn for other labels.
        """
        self.check(labels)
        owner = np.empty(len(labels), np.int64)
        for cid, part in enumerate(self.clients):
            owner[part] = cid
        cells = owner * self.num_classes + labels
        flat = np.bincount(cells, minlength=self.num_clients * self.num_classes)
        return flat.reshape(self.num_clients, self.num_classes)

    def check(self, labels: NDArray[np.int64], where: str = "partition") -> None:
        """Refuse labels (N,) other than those that the partition was drawn for.

        Raises:
            FedltError: If number or order of the labels differ.
        """
        if len(labels) != self.num_images:
            raise FedltError(
                f"{where}: made for {self.num_images} images, but the data have {len(labels)}"
            )
        if labels_hash(labels) != self.labels_sha256:
            raise FedltError(f"{where}: made for other data (the labels differ)")

    def hash(self) -> str:
        """Return the SHA-256 of the whole partition, as hex; the same on every machine."""
        digest = hashlib.sha256(
            f"fedlt partition {_FORMAT}/{self.num_classes}/{self.labels_sha256}".encode()
        )
        for part in self.clients:
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part.astype("<i8").tobytes())
        return digest.hexdigest()

    def save(self, path: str | Path) -> None:
        """Write the partition as JSON with its checksum, in one step."""
        content = {
            "format": _FORMAT,
            "num_clients": self.num_clients,
            "num_classes": self.num_classes,
            "num_images": self.num_images,
            "labels_sha256": self.labels_sha256,
            "sha256": self.hash(),
            "clients": [part.tolist() for part in self.clients],
        }
        target = Path(path)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}-", dir=target.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(content, file, separators=(",", ":"))
            Path(name).replace(target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    @classmethod
    def load(cls, path: str | Path) -> Partition:
        """Read a partition written by :meth:`save`.

        Raises:
            FedltError: If the file is missing, not a partition, or its checksum is wrong.
        """
        where = f"partition.file {str(path)!r}"
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise FedltError(f"{where}: cannot be read ({error.strerror})") from error
        except ValueError as error:
            raise FedltError(f"{where}: is not JSON ({error})") from error
        if not isinstance(content, dict) or content.get("format") != _FORMAT:
            raise FedltError(f"{where}: is not a fedlt partition of format {_FORMAT}")
        return _parse(content, where)


def _parse(content: dict[str, Any], where: str) -> Partition:
    """Build the partition in a JSON object and compare its checksum."""
    try:
        clients = tuple(np.array(part, np.int64) for part in content["clients"])
        partition = Partition(clients, int(content["num_classes"]), str(content["labels_sha256"]))
    except FedltError as error:
        raise FedltError(f"{where}: {error}") from error
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise FedltError(f"{where}: is not a fedlt partition ({error!r})") from error
    if content.get("sha256") != partition.hash():
        raise FedltError(f"{where}: the checksum is wrong; the file was changed or damaged")
    return partition
