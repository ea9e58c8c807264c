"""Hugging Face data sets: a folder written by ``save_to_disk``, or a name, which needs the network.

Images are taken as the files that the data set holds, and decoded as any other image file.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fedlt.data.dataset import Dataset
from fedlt.data.sources.assembling import ImagePart, dataset_of_parts, file_words, with_test
from fedlt.data.sources.decoding import Form
from fedlt.data.sources.image_cache import ImageCache
from fedlt.data.sources.known_sets import find_known
from fedlt.data.sources.pictures import picture_channels, picture_size
from fedlt.data.sources.places import need_folder
from fedlt.errors import FedltError, nearest, one_line, shortened

_SPLITS = {"train": "train", "test": "test", "validation": "val", "valid": "val", "val": "val"}


def hugging_face(
    *,
    path: str | None = None,
    name: str | None = None,
    image: str = "image",
    label: str = "label",
    client: str | None = None,
    image_size: int | list[int] | None = None,
    channels: int = 3,
    test_share: float | None = None,
    expect: str | None = None,
    strict: bool = True,
    classes: list[str] | None = None,
    cache: ImageCache,
) -> Dataset:
    """A Hugging Face data set saved with save_to_disk, or by name; needs fedlt[huggingface].

    Args:
        path: A folder that ``save_to_disk`` wrote.
        name: A name on the hub, in place of ``path``; needs the network at the first time.
        image: Column of the images.
        label: Column of the labels.
        client: Column of natural client ids; None: the column ``client``, if there.
        image_size: As in :func:`fedlt.data.sources.folders.folder`.
        channels: 1, 3 or 4.
        test_share: Share of each class to hold out, where there is no test split.
        expect: A known data set whose numbers are checked.
        strict: Whether a number that differs is an error.
        classes: All classes in order, also those without an image here; None: as the images say.
        cache: Where decoded images are kept.

    Raises:
        FedltError: If the data set cannot be opened, or has no such column.
    """
    if (path is None) == (name is None):
        raise FedltError("data.options: huggingface needs path or name, and not both")
    known = find_known(expect)
    form = Form(picture_size(image_size), picture_channels(channels))
    where = f"{path or name}"
    splits = _open(path, name)
    parts = {
        part: _part(f"{where}, {part}", table, image, label, client, is_train=part == "train")
        for part, table in splits.items()
    }
    if "test" not in parts and "val" in parts:
        parts["test"] = parts.pop("val")
    parts = with_test(parts, test_share, f"{where}: has no split 'test' or 'validation'")
    stem = where.rstrip("/").rpartition("/")[2].lower() or "huggingface"
    found = dataset_of_parts(stem, parts, form, cache, known=known, strict=strict, classes=classes)
    names = ", ".join(splits["train"].column_names)
    hint = f"data.options.client names the column that has them; columns: {shortened(names)}"
    return replace(found, client_hint=hint)


def _open(path: str | None, name: str | None) -> dict[str, Any]:
    """Return the splits of a data set by part.

    Raises:
        FedltError: If the package is missing, or the data set cannot be opened.
    """
    try:
        import datasets
    except ImportError as error:
        raise FedltError(
            "data.dataset: huggingface needs pip install 'fedlt[huggingface]'"
        ) from error
    if path is not None:
        place = need_folder(path, "data.options.path")
        try:
            found = datasets.load_from_disk(str(place))
        except Exception as error:  # of many kinds: no such format, damaged, another version
            raise FedltError(
                f"data.options.path: {path!r} is not a folder that save_to_disk wrote:"
                f" {one_line(error)}"
            ) from error
    else:
        try:
            with _without_warnings("huggingface_hub"):  # a line for every vain attempt
                found = datasets.load_dataset(name)
        except Exception as error:  # of many kinds: no network, no such name, no rights
            raise FedltError(
                f"data.options.name: {name!r} cannot be loaded from the hub, which needs the"
                f" network: {one_line(error)}; a data set saved with save_to_disk is read by path"
            ) from error
    if not hasattr(found, "keys"):
        return {"train": found}
    splits = {_SPLITS[key]: found[key] for key in found if key in _SPLITS}
    if "train" not in splits:
        raise FedltError(f"{path or name}: has no split 'train'{nearest('train', found)}")
    return splits


@contextmanager
def _without_warnings(logger: str) -> Iterator[None]:
    """Inside the block, log only errors of a package."""
    found = logging.getLogger(logger)
    before = found.level
    found.setLevel(logging.ERROR)
    try:
        yield
    finally:
        found.setLevel(before)


def _part(
    where: str,
    table: Any,  # noqa: ANN401 (types of an optional package)
    image: str,
    label: str,
    client: str | None,
    *,
    is_train: bool,
) -> ImagePart:
    """Return the images of one split.

    Raises:
        FedltError: If a column is missing, or the images are not images.
    """
    needed = {"image": image, "label": label}
    if client is not None and is_train:
        needed["client"] = client
    for option, column in needed.items():
        if column not in table.column_names:
            known = nearest(column, table.column_names)
            raise FedltError(f"data.options.{option}: {where} has no column {column!r}{known}")
    owners = client or "client"
    return ImagePart(
        _Images(where, table, image),
        _labels(table, label),
        lambda row: f"{where}, row {row}",
        table[owners][:] if owners in table.column_names else None,
        [*_identity(table), image],
    )


def _labels(table: Any, column: str) -> Any:  # noqa: ANN401 (types of an optional package)
    """Return the labels of a column; those of a ClassLabel as names."""
    values = table[column][:]
    names = getattr(table.features[column], "names", None)
    if names is None:
        return np.array(values, object)
    return np.array([None if n is None or n < 0 else names[n] for n in values], object)


def _identity(table: Any) -> list[str]:  # noqa: ANN401 (types of an optional package)
    """Return words that tell a split from all others: its files, and how it was made of them."""
    files = [file_words(Path(one["filename"])) for one in table.cache_files]
    return [*files, str(len(table)), *([] if files else [table._fingerprint])]


class _Images(Sequence[bytes]):
    """Image files of a column, read from the data set some rows at a time."""

    def __init__(self, where: str, table: Any, column: str) -> None:  # noqa: ANN401
        import datasets

        if not isinstance(table.features[column], datasets.Image):
            raise FedltError(
                f"data.options.image: column {column!r} of {where} holds"
                f" {table.features[column]}, not datasets.Image()"
            )
        self._where, self._column = where, column
        self._table = table.select_columns([column]).cast_column(
            column, datasets.Image(decode=False)
        )

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, at: Any) -> Any:  # noqa: ANN401 (a row or a slice of rows)
        if isinstance(at, slice):
            found = self._table[at][self._column]
            start = range(len(self))[at].start
            return [self._bytes(one, start + step) for step, one in enumerate(found)]
        return self._bytes(self._table[int(at)][self._column], int(at))

    def _bytes(self, value: Any, row: int) -> Any:  # noqa: ANN401 (bytes, or a path)
        if value is None:
            raise FedltError(f"{self._where}, row {row}: has no image")
        return Path(value["path"]) if value["bytes"] is None else value["bytes"]
