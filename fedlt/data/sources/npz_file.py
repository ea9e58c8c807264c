"""Images or features with labels in one file of arrays; MedMNIST's files as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedlt.data.axes import usable_images
from fedlt.data.dataset import Dataset
from fedlt.data.sources.array_files import ArrayMember, open_arrays
from fedlt.data.sources.assembling import assembled, file_words
from fedlt.data.sources.image_cache import ImageCache
from fedlt.data.sources.known_sets import KnownSet, check_counts, find_known
from fedlt.data.sources.numbering import Place, number_clients, number_labels
from fedlt.data.sources.places import need_array_file
from fedlt.errors import FedltError, nearest

_IN_MEMORY = 64 << 20  # bytes: arrays up to this size are held in memory where a map is impossible
_PARTS = ("train", "val", "test")


def npz_file(
    *,
    path: str,
    channels_last: bool | None = None,
    expect: str | None = None,
    strict: bool = True,
    classes: list[str] | None = None,
    cache: ImageCache,
) -> Dataset:
    """Arrays train_images, train_labels, test_images, test_labels (and val) in an npz file.

    The arrays ``train_clients``, ``val_clients``, ``test_clients`` are natural client ids, if
    there. Uncompressed arrays are mapped in place; large compressed arrays are written into the
    cache once.

    Args:
        path: The file, or a folder of files ``train_images.npy`` and so on. Images are uint8, or
            float in [0, 1]: (N, H, W), (N, H, W, Ch) or (N, Ch, H, W) with 1 to 4 channels.
        channels_last: Whether the last axis is the channel axis; None: as the sizes tell.
        expect: A known data set whose numbers are checked; None: as the file's name says.
        strict: Whether a number that differs is an error.
        classes: All classes in order, also those without an image here; None: as the images say.
        cache: Where arrays are kept that cannot be mapped in place.

    Raises:
        FedltError: If an array is missing or does not fit.
    """
    known = find_known(expect, path)
    arrays = _Arrays(need_array_file(path, "data.options.path", known), "images", cache)
    return arrays.dataset(known, strict=strict, channels_last=channels_last, classes=classes)


def features(*, path: str, classes: list[str] | None = None, cache: ImageCache) -> Dataset:
    """Float vectors (N, d) with labels in an npz file: embeddings of any frozen model.

    Args:
        path: A file with the arrays ``train_features``, ``train_labels``, ``test_features``,
            ``test_labels``, and perhaps those of ``val`` and ``..._clients``.
        classes: All classes in order, also those without an image here; None: as the images say.
        cache: Where arrays are kept that cannot be mapped in place.

    Raises:
        FedltError: If an array is missing or does not fit.
    """
    arrays = _Arrays(need_array_file(path, "data.options.path"), "features", cache)
    for member in arrays.pixels.values():
        if member.dtype.kind != "f" or len(member.shape) != 2:
            found = f"{member.dtype} {member.shape}"
            raise FedltError(f"{member.where}: features must be float (N, d), got {found}")
    return arrays.dataset(None, strict=True, channels_last=None, classes=classes)


class _Arrays:
    """Arrays ``<part>_<kind>``, ``<part>_labels`` and ``<part>_clients`` of a file."""

    def __init__(self, file: Path, kind: str, cache: ImageCache) -> None:
        self._file, self._cache = file, cache
        self._members = open_arrays(file)
        parts = [part for part in _PARTS if part != "val" or f"val_{kind}" in self._members]
        self.pixels = {part: self._member(f"{part}_{kind}") for part in parts}

    def dataset(
        self,
        known: KnownSet | None,
        *,
        strict: bool,
        channels_last: bool | None,
        classes: Sequence[object] | None,
    ) -> Dataset:
        """Return the data set of the arrays."""
        labels, places = self._words("labels", [*self.pixels])
        numbers, names = number_labels(labels, places, classes)
        counts = {part: len(one) for part, one in numbers.items()}
        for line in check_counts(known, counts, len(names), strict=strict):
            self._cache.note(line)
        images = {
            part: usable_images(member.where, self._kept(part, member), channels_last=channels_last)
            for part, member in self.pixels.items()
        }
        owned = [part for part in self.pixels if f"{part}_clients" in self._members]
        clients: dict[str, Any] = {}
        if "train" in owned:
            clients["owners"] = number_clients(*self._words("clients", owned))
        clients["classes_given"] = classes is not None
        found = assembled(self._file.stem.lower(), images, numbers, names, **clients)
        hint = f"the array train_clients of {self._file.name} would hold them"
        return replace(found, client_hint=hint)

    def _member(self, key: str) -> ArrayMember:
        if key not in self._members:
            raise FedltError(f"{self._file}: has no {key!r}{nearest(key, self._members)}")
        return self._members[key]

    def _words(self, what: str, parts: list[str]) -> tuple[dict[str, ArrayLike], dict[str, Place]]:
        """Return labels or clients by part, and words for the places of their rows.

        Raises:
            FedltError: If an array is missing, or has another length than the images.
        """
        values: dict[str, ArrayLike] = {}
        places: dict[str, Place] = {}
        for part in parts:
            member, images = self._member(f"{part}_{what}"), self.pixels[part].shape[0]
            if member.shape[0] != images:
                raise FedltError(
                    f"{member.where}: {member.shape[0]:,} {what} for {images:,} rows of"
                    f" {self.pixels[part].where}"
                )
            values[part], places[part] = member.read(), _rows(member)
        return values, places

    def _kept(self, part: str, member: ArrayMember) -> NDArray[Any]:
        """Return an array: mapped in place, in memory, or mapped from the cache.

        Floats of another width become float32. Other types are returned as they are, to be
        refused.
        """
        dtype = np.dtype(np.float32) if member.dtype.kind == "f" else member.dtype
        if member.mapped is not None and member.dtype == dtype:
            return member.mapped
        if member.row_bytes * member.shape[0] <= _IN_MEMORY:
            return member.read().astype(dtype, copy=False)
        sides = "x".join(map(str, member.shape[1:]))
        return self._cache.images(
            part,
            f"{self._file.stem.lower()}-{part}-{sides}",
            [file_words(member.path), member.where],
            member.shape,
            dtype,
            lambda: (rows.astype(dtype, copy=False) for rows in member.chunks()),
        )


def _rows(member: ArrayMember) -> Place:
    return lambda row: f"{member.where}, row {row}"
