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

from fedlt.errors import FedltError, nearest, shortened
from fedlt.machine.durable import replacing
from fedlt.machine.reading import read_json

NOBODY = -1  # in place of a cid: the image has no client
_FORMAT = 1
_KEYS = (
    "format", "num_clients", "num_classes", "num_images", "labels_sha256", "sha256", "clients",
)  # fmt: skip


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
    """Assignment of training images to clients.

    An image has one client or none; nobody trains on an image without a client. A client may be
    empty.

    Raises:
        FedltError: If a row is repeated or out of range, or there is no client.
    """

    clients: Shares  # by cid: ascending rows in the N images; may be given as arrays
    num_classes: int  # C
    labels_sha256: str  # labels_hash of the N labels that the partition was drawn for
    num_images: int = 0  # N; 0: every image has a client, so N is the number of rows

    def __post_init__(self) -> None:
        given = self.clients if isinstance(self.clients, Shares) else Shares.of(self.clients)
        size = self.num_images or len(given.positions)
        _check_rows(given, size)
        object.__setattr__(self, "num_images", size)
        owner = np.full(size, NOBODY)
        owner[given.positions] = given.owners()
        ordered = Shares(_by_owner(owner), given.sizes)
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
        """Return a partition made from ``owner`` (N,): the cid of each image, or :data:`NOBODY`."""
        sizes = np.bincount(owner[owner != NOBODY], minlength=num_clients)
        shares = Shares(_by_owner(owner), sizes)
        return cls(shares, num_classes, labels_hash(labels), len(owner))

    @property
    def num_clients(self) -> int:
        """Number of clients, K, empty ones included."""
        return len(self.clients)

    @property
    def num_dropped(self) -> int:
        """Number of images without a client."""
        return self.num_images - len(self.clients.positions)

    def sizes(self) -> NDArray[np.int64]:
        """Return the number of images of each client (K,)."""
        return self.clients.sizes

    def owner(self) -> NDArray[np.int64]:
        """Return the cid of each image (N,), :data:`NOBODY` for an image without a client."""
        owner = np.full(self.num_images, NOBODY)
        owner[self.clients.positions] = self.clients.owners()
        return owner

    def covered(self) -> NDArray[np.int64]:
        """Return the ascending rows of the images that have a client."""
        return np.sort(self.clients.positions)

    def counts(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the class counts of each client (K, C).

        Args:
            labels: (N,) classes of the training images.

        Raises:
            FedltError: If the partition was drawn for other labels.
        """
        self.check(labels)
        cells = self.clients.owners() * self.num_classes + labels[self.clients.positions]
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
        """Write the partition and its checksums to a JSON file, atomically."""
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
        """Return a partition read from a whole file of :meth:`save`.

        Raises:
            FedltError: If the file is missing, not a partition, or a checksum is missing or wrong.
        """
        where = f"partition.file {str(path)!r}"
        content = read_content(path, where)
        lacking = [key for key in _KEYS if key not in content]
        if lacking:
            raise FedltError(f"{where}: has no {', '.join(lacking)}")
        return parse_partition(content, where)


def _check_rows(shares: Shares, size: int) -> None:
    """Refuse rows that are not those of ``size`` images, or that two clients have."""
    rows = shares.positions
    if not len(shares):
        raise FedltError("partition: no clients")
    outside = np.flatnonzero((rows < 0) | (rows >= size))
    if len(outside):
        cid, row = shares.owners()[outside[0]], rows[outside[0]]
        raise FedltError(
            f"partition: client {cid} has row {row}, which is out of range; the {size} images have "
            f"rows 0 to {size - 1}"
        )
    repeated = np.flatnonzero(np.bincount(rows, minlength=size) > 1)
    if len(repeated):
        cids = shares.owners()[rows == repeated[0]]
        who = f"client {cids[0]}" if cids[0] == cids[1] else f"clients {cids[0]} and {cids[1]}"
        raise FedltError(f"partition: row {repeated[0]} is repeated, in {who}")


def _by_owner(owner: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rows that have a client, client by client, ascending within each."""
    return np.argsort(owner, kind="stable")[np.count_nonzero(owner == NOBODY) :]


def read_content(path: str | Path, where: str) -> dict[str, Any]:
    """Return the JSON object of a partition file, with known keys only.

    Raises:
        FedltError: If the file cannot be read, has another format, or has an unknown key.
    """
    content = read_json(Path(path), where=where)
    if not isinstance(content, dict) or "clients" not in content:
        raise FedltError(
            f'{where}: is not a fedlt partition; expected {{"clients": [[0, 1], [2]]}}, the rows '
            "of each client"
        )
    if content.get("format", _FORMAT) != _FORMAT:
        raise FedltError(f"{where}: has format {content['format']!r}; known is format {_FORMAT}")
    for key in content:
        if key not in _KEYS:
            raise FedltError(f"{where}: unknown key {key!r}{nearest(key, _KEYS)}")
    return content


def parse_partition(content: dict[str, Any], where: str) -> Partition:
    """Return the partition in a JSON object that has every key but perhaps ``sha256``.

    Raises:
        FedltError: If a value does not fit the others, or the checksum is wrong.
    """
    clients = content["clients"]
    if not isinstance(clients, list) or not clients:
        value = shortened(repr(clients))
        raise FedltError(f"{where}: clients is {value}; expected a list of lists, one a client")
    for cid, rows in enumerate(clients):
        _check_list(rows, f"{where}: client {cid}")
    for key in ("num_clients", "num_classes", "num_images"):
        if not _is_whole(content[key]) or content[key] < 1:
            value = shortened(repr(content[key]))
            raise FedltError(f"{where}: {key} is {value}; expected a whole number above 0")
    if content["num_clients"] != len(clients):
        raise FedltError(
            f"{where}: num_clients is {content['num_clients']}, but clients has {len(clients)}"
        )
    sizes = np.array([len(rows) for rows in clients], np.int64)
    joined = np.fromiter(itertools.chain.from_iterable(clients), np.int64, int(sizes.sum()))
    try:
        partition = Partition(
            Shares(joined, sizes),
            content["num_classes"],
            str(content["labels_sha256"]),
            content["num_images"],
        )
    except FedltError as error:
        raise FedltError(f"{where}: {str(error).removeprefix('partition: ')}") from error
    if "sha256" in content and content["sha256"] != partition.hash():
        raise FedltError(f"{where}: the checksum is wrong; the file was changed or damaged")
    return partition


def _check_list(rows: object, where: str) -> None:
    """Refuse anything but a list of whole numbers."""
    if not isinstance(rows, list):
        raise FedltError(f"{where} is {shortened(repr(rows))}; expected a list of rows")
    for row in rows:
        if not _is_whole(row) or abs(row) >= 2**63:
            raise FedltError(f"{where} has {shortened(repr(row))}; a row is a whole number")


def _is_whole(value: object) -> bool:
    return type(value) is int
