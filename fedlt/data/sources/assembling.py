"""From lists of images, labels and clients to a data set: numbered, decoded, memory-mapped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedlt.data.arrays import IntArray
from fedlt.data.dataset import Dataset
from fedlt.data.moments import channel_moments
from fedlt.data.sources.decoding import Chosen, FirstImage, Form, Sources, decoded, first_shape
from fedlt.data.sources.image_cache import ImageCache
from fedlt.data.sources.known_sets import KnownSet, check_counts
from fedlt.data.sources.numbering import Owners, Place, number_clients, number_labels
from fedlt.data.splits import hold_out
from fedlt.errors import FedltError

_FIELDS = {"train": "train", "val": "validation", "test": "test"}  # part -> fields of Dataset


@dataclass(frozen=True)
class ImagePart:
    """Images of one part of a data set before decoding."""

    sources: Sources  # (N,) image files, or their bytes
    labels: ArrayLike  # (N,) of any kind
    place: Place  # row -> its place in the user's files
    clients: ArrayLike | None = None  # (N,) of any kind; None: the part names no clients
    made_of: Sequence[str] | None = None  # what identifies the images; None: the files do

    def rows(self, chosen: IntArray) -> ImagePart:
        """Return the part with the chosen rows only."""
        place = self.place
        clients = None if self.clients is None else np.asarray(self.clients)[chosen]
        made_of = None if self.made_of is None else [*self.made_of, str(chosen.tolist())]
        return ImagePart(
            Chosen(self.sources, chosen),
            np.asarray(self.labels)[chosen],
            lambda row: place(int(chosen[row])),
            clients,
            made_of,
        )

    def identity(self) -> list[str]:
        """Return words that tell the images from all other images.

        Raises:
            FedltError: If an image file is missing.
        """
        if self.made_of is not None:
            return [*self.made_of]
        words = []
        for row, path in enumerate(self.sources):
            try:
                words.append(file_words(Path(path)))  # type: ignore[arg-type]  # files here
            except OSError as error:
                raise FedltError(f"{self.place(row)}: {error.strerror}") from error
        return words


def file_words(path: Path) -> str:
    """Return path, size and time of change of a file, which tell its content from another.

    Raises:
        OSError: If there is no such file.
    """
    found = path.stat()
    return f"{path.absolute()} {found.st_size} {found.st_mtime_ns}"


def dataset_of_parts(
    name: str,
    parts: Mapping[str, ImagePart],
    form: Form,
    cache: ImageCache,
    *,
    known: KnownSet | None = None,
    strict: bool = True,
    classes: Sequence[object] | None = None,
) -> Dataset:
    """Return the data set of images in files, decoded into the cache.

    Args:
        name: Name of the data set.
        parts: ``train``, ``test`` and perhaps ``val``.
        form: The form that images are brought to.
        cache: Where decoded images are kept.
        known: Published numbers to check; None: none.
        strict: Whether a number that differs from a published one is an error.
        classes: As in :func:`fedlt.data.sources.numbering.number_labels`.

    Raises:
        FedltError: If a part is empty, a label or client is missing, or an image cannot be read.
    """
    for part, one in parts.items():
        if len(one.sources) == 0:
            raise FedltError(f"data set {name!r}: has no {part} images")
    numbers, names = number_labels(
        {part: one.labels for part, one in parts.items()},
        {part: one.place for part, one in parts.items()},
        classes,
    )
    counts = {part: len(labels) for part, labels in numbers.items()}
    for line in check_counts(known, counts, len(names), strict=strict):
        cache.note(line)
    with _obtained(known):
        identities = {part: one.identity() for part, one in parts.items()}
    first = first_shape(parts["train"].sources, parts["train"].place, form)
    images = {
        part: _decoded(name, part, one, identities[part], form, first, cache)
        for part, one in parts.items()
    }
    return assembled(
        name, images, numbers, names, classes_given=classes is not None, **_clients(parts)
    )


@contextmanager
def _obtained(known: KnownSet | None) -> Iterator[None]:
    """Add to a line about a missing image where the images of a known data set come from."""
    try:
        yield
    except FedltError as error:
        if known is None:
            raise
        raise FedltError(f"{error}; {known.title}: {known.obtain}") from error


def _decoded(
    name: str,
    part: str,
    one: ImagePart,
    identity: list[str],
    form: Form,
    first: FirstImage,
    cache: ImageCache,
) -> NDArray[Any]:
    sides = "x".join(map(str, first.shape[1:]))
    return cache.images(
        part,
        f"{name}-{part}-{sides}",
        [str(form), *identity],
        (len(one.sources), *first.shape),
        np.dtype(np.uint8),
        lambda: decoded(one.sources, one.place, form, first, threads=cache.threads),
    )


def _clients(parts: Mapping[str, ImagePart]) -> dict[str, Any]:
    """Return the clients of all parts that name clients, as arguments of :func:`assembled`."""
    if parts["train"].clients is None:
        return {}
    named = {part: one for part, one in parts.items() if one.clients is not None}
    owners = number_clients(
        {part: one.clients for part, one in named.items() if one.clients is not None},
        {part: one.place for part, one in named.items()},
    )
    return {"owners": owners}


def assembled(
    name: str,
    images: Mapping[str, NDArray[Any]],
    labels: Mapping[str, IntArray],
    class_names: tuple[str, ...],
    *,
    owners: Owners | None = None,
    classes_given: bool = False,
) -> Dataset:
    """Return the data set of arrays by part; its pool is used as it stands.

    Clients are unknown where no training image has one. Given classes may lack images.

    Raises:
        FedltError: If arrays do not fit together, or there is only one class.
    """
    if len(class_names) < 2:
        raise FedltError(f"data set {name!r}: all images are of class {class_names[0]!r}")
    fields: dict[str, Any] = {}
    owned = owners if owners is not None and owners.names else None
    for part, field in _FIELDS.items():
        if part in images:
            fields[f"{field}_images"], fields[f"{field}_labels"] = images[part], labels[part]
        if owned is not None and part in images:
            fields[f"{field}_clients"] = owned.numbers.get(part)
            fields.setdefault("strangers", {})[field] = owned.strangers.get(part, {})
    mean, std = channel_moments(images["train"])
    return Dataset(
        name=name,
        num_classes=len(class_names),
        mean=mean,
        std=std,
        class_names=class_names,
        long_tailed=True,
        classes_given=classes_given,
        client_names=owned.names if owned is not None else (),
        **fields,
    )


def with_test(parts: dict[str, ImagePart], test_share: object, hint: str) -> dict[str, ImagePart]:
    """Return parts with a test part: their own, or a share of each class of the training part.

    The share is drawn alike in every run (:func:`fedlt.data.splits.hold_out`); a class keeps at
    least one training image.

    Args:
        parts: ``train`` and perhaps others.
        test_share: The option of that name: above 0 and below 1, or None.
        hint: What the user may do where there is no test part.

    Raises:
        FedltError: If there is no test part and no share, or both, or no number between 0 and 1.
    """
    if "test" in parts:
        if test_share is not None:
            raise FedltError("data.options.test_share: there are test images; leave it out")
        return parts
    if test_share is None:
        raise FedltError(
            f"{hint}; or data.options.test_share=0.2 holds out a fifth of each class as test images"
        )
    if not isinstance(test_share, float) or not 0 < test_share < 1:
        raise FedltError(
            f"data.options.test_share: must be above 0 and below 1, got {test_share!r}"
        )
    train = parts["train"]
    numbers, classes = number_labels({"train": train.labels}, {"train": train.place})
    counts = np.bincount(numbers["train"], minlength=len(classes))
    wanted = np.minimum(np.rint(test_share * counts).astype(np.int64), counts - 1)
    held, rest = hold_out(numbers["train"], len(classes), wanted)
    return {**parts, "train": train.rows(rest), "test": train.rows(held)}
