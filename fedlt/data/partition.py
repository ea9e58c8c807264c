"""Partition: the training images of each client, as a value that can be hashed and saved."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlt.errors import FedltError
from fedlt.machine.durable import replacing
from fedlt.machine.reading import read_json

_FORMAT = 1


def labels_hash(labels: NDArray[np.int64]) -> str:
    """Return the SHA-256 of labels (N,) in hex; a partition fits only labels with its own hash."""
    return hashlib.sha256(np.asarray(labels, "<i8").tobytes()).hexdigest()


class Shares:
    """Rows of all clients in the training images, one client after another in a single array.

    ``shares[cid]`` is a view, made on demand, so 100,000 clients do not need 100,000 arrays.
    """

    def __init__(self, positions: NDArray[np.int64], sizes: NDArray[np.int64]) -> None:
        self.positions, self.sizes = positions, sizes  # (N,), and (K,) images of each client
        self.ends = np.cumsum(sizes)  # (K,)
        for array in (self.positions, self.sizes, self.ends):
            array.flags.writeable = False

    @classmethod
    def of(cls, parts: Iterable[NDArray[np.int64]]) -> Shares:
        """Return the shares made from one array per client."""
        arrays = [np.asarray(part, np.int64).reshape(-1) for part in parts]
        sizes = np.array([len(array) for array in arrays], np.int64)
        return cls(np.concatenate([np.empty(0, np.int64), *arrays]), sizes)

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, cid: int) -> NDArray[np.int64]:
        end = self.ends[cid]
        return self.positions[end - self.sizes[cid] : end]

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        return (self[cid] for cid in range(len(self)))

    def owners(self) -> NDArray[np.int64]:
        """Return the cid of the client that holds each entry of ``positions`` (N,)."""
        return np.repeat(np.arange(len(self)), self.sizes)


@dataclass(frozen=True, eq=False)
class Partition:
    """Assignment of every training image to exactly one client; a client may be empty.

    Raises:
        FedltError: If a row is missing, repeated or out of range.
    """

    clients: Shares  # by cid: ascending rows in the N images; may be given as arrays
    num_classes: int  # C
    labels_sha256: str  # labels_hash of the N labels that the partition was drawn for

    def __post_init__(self) -> None:
        given = self.clients if isinstance(self.clients, Shares) else Shares.of(self.clients)
        size = len(given.positions)
        if not len(given):
            raise FedltError("partition: no clients")
        inside = given.positions[(given.positions >= 0) & (given.positions < size)]
        if not np.array_equal(np.bincount(inside, minlength=size), np.ones(size)):
            raise FedltError("partition: a position is missing, repeated or out of range")
        owner = np.empty(size, np.int64)
        owner[given.positions] = given.owners()
        ordered = Shares(np.argsort(owner, kind="stable"), given.sizes)
        object.__setattr__(self, "clients", ordered)

    @classmethod
    def from_owner(
        cls,
        owner: NDArray[np.int64],
        labels: NDArray[np.int64],
        *,
        num_clients: int,
        num_classes: int,
    ) -> Partition:
        """Return a partition made from ``owner`` (N,), the cid of each image."""
        sizes = np.bincount(owner, minlength=num_clients)
        shares = Shares(np.argsort(owner, kind="stable"), sizes)
        return cls(shares, num_classes, labels_hash(labels))

    @property
    def num_clients(self) -> int:
        """Number of clients, K, empty ones included."""
        return len(self.clients)

    @property
    def num_images(self) -> int:
        """Number of training images, N."""
        return len(self.clients.positions)

    def sizes(self) -> NDArray[np.int64]:
        """Return the number of images of each client (K,)."""
        return self.clients.sizes

    def counts(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the class counts of each client (K, C).

        Args:
            labels: (N,) classes of the training images.

        Raises:
            FedltError: If the partition was drawn for other labels.
        """
        self.check(labels)
        owner = np.empty(len(labels), np.int64)
        owner[self.clients.positions] = self.clients.owners()
        cells = owner * self.num_classes + labels
        flat = np.bincount(cells, minlength=self.num_clients * self.num_classes)
        return flat.reshape(self.num_clients, self.num_classes)

    def check(self, labels: NDArray[np.int64], where: str = "partition") -> None:
        """Refuse labels (N,) that differ from the labels that the partition was drawn for.

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
        """Return the SHA-256 of the whole partition in hex, the same on every machine."""
        digest = hashlib.sha256(
            f"fedlt partition {_FORMAT}/{self.num_classes}/{self.labels_sha256}".encode()
        )
        shares = self.clients
        starts = shares.ends - shares.sizes
        digest.update(np.insert(shares.positions, starts, shares.sizes).astype("<i8").tobytes())
        return digest.hexdigest()

    def save(self, path: str | Path) -> None:
        """Write the partition and its checksum to a JSON file, atomically."""
        content = {
            "format": _FORMAT,
            "num_clients": self.num_clients,
            "num_classes": self.num_classes,
            "num_images": self.num_images,
            "labels_sha256": self.labels_sha256,
            "sha256": self.hash(),
            "clients": [part.tolist() for part in self.clients],
        }
        with replacing(Path(path)) as file:
            file.write(json.dumps(content, separators=(",", ":")).encode())

    @classmethod
    def load(cls, path: str | Path) -> Partition:
        """Return a partition read from a file of :meth:`save`.

        Raises:
            FedltError: If the file is missing, not a partition, or its checksum is wrong.
        """
        where = f"partition.file {str(path)!r}"
        content = read_json(Path(path), where=where)
        if not isinstance(content, dict) or content.get("format") != _FORMAT:
            raise FedltError(f"{where}: is not a fedlt partition of format {_FORMAT}")
        return _parse(content, where)


def _parse(content: dict[str, Any], where: str) -> Partition:
    """Return the partition in a JSON object, after comparing its checksum."""
    try:
        sizes = np.array([len(part) for part in content["clients"]], np.int64)
        joined = list(itertools.chain.from_iterable(content["clients"]))
        shares = Shares(_integers(joined), sizes)
        partition = Partition(shares, int(content["num_classes"]), str(content["labels_sha256"]))
    except FedltError as error:
        raise FedltError(f"{where}: {error}") from error
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise FedltError(f"{where}: is not a fedlt partition ({error!r})") from error
    if content.get("sha256") != partition.hash():
        raise FedltError(f"{where}: the checksum is wrong; the file was changed or damaged")
    return partition


def _integers(values: list[Any]) -> NDArray[np.int64]:
    """Return a list of JSON numbers as an int64 array; raise TypeError if one is no integer."""
    array = np.array(values or np.empty(0, np.int64))
    if array.dtype != np.int64 or array.ndim != 1:
        raise TypeError("clients must be lists of integers")
    return array
