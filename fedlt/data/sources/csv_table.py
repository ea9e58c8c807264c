"""Tables with an image file a row, and columns for label, client and part."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fedlt.data.dataset import Dataset
from fedlt.data.sources.assembling import ImagePart, dataset_of_parts, with_test
from fedlt.data.sources.decoding import Form
from fedlt.data.sources.image_cache import ImageCache
from fedlt.data.sources.known_sets import find_known
from fedlt.data.sources.pictures import SUFFIXES, picture_channels, picture_size
from fedlt.data.sources.places import need_tables
from fedlt.errors import FedltError, nearest, shortened
from fedlt.machine.reading import read_text

_MOST = 4 << 30  # bytes of a table
_COLUMNS = ("path", "label", "client", "split")  # what a column may be used for
_NEEDED = ("path", "label")
_SPLITS = {
    "train": "train", "training": "train", "test": "test", "testing": "test",
    "val": "val", "valid": "val", "validation": "val",
}  # fmt: skip


def csv_table(
    *,
    path: str,
    test_path: str | None = None,
    val_path: str | None = None,
    root: str | None = None,
    columns: Mapping[str, str] | None = None,
    image_size: int | list[int] | None = None,
    channels: int = 3,
    test_share: float | None = None,
    expect: str | None = None,
    strict: bool = True,
    classes: list[str] | None = None,
    cache: ImageCache,
) -> Dataset:
    """Table with an image file a row, and columns for label, client and split.

    A table has a line of column names, and commas, semicolons or tabs between its columns. The
    column ``split`` says ``train``, ``val`` or ``test``; the parts may also lie in several tables.
    An image without suffix or folder is looked for by its name in all folders below ``root``.

    Args:
        path: The table, or the table of the training images.
        test_path: The table of the test images.
        val_path: The table of the validation images.
        root: Folder in which the paths begin; None: the folder of the table.
        columns: ``path``, ``label``, ``client``, ``split`` -> name of the column. A column that
            is not given is the one of that name; ``client`` and ``split`` may be missing.
        image_size: As in :func:`fedlt.data.sources.folders.folder`.
        channels: 1, 3 or 4.
        test_share: Share of each class to hold out, where there are no test images.
        expect: A known data set whose numbers are checked; None: as the name of the table says.
        strict: Whether a number that differs is an error.
        classes: All classes in order, also those without an image here; None: as the images say.
        cache: Where decoded images are kept.

    Raises:
        FedltError: If a table or column is missing or a row cannot be read, with file and line.
    """
    known = find_known(expect, path)
    form = Form(picture_size(image_size), picture_channels(channels))
    tables = {"path": path, "test_path": test_path, "val_path": val_path}
    files, top = need_tables(tables, root, known)
    finder = _Finder(top)
    parts: dict[str, ImagePart] = {}
    names: list[str] = []  # of the first table's columns
    for option, file in files.items():
        table = _read_table(file, _checked(columns), is_first=option == "path")
        names = names or table.names
        own = "train" if option == "path" else option.removesuffix("_path")
        parts |= _by_part(table, own, finder, single=len(files) == 1)
    if "train" not in parts:
        raise FedltError(f"{files['path']}: no row is in the split 'train'")
    hint = "data.options.columns.split: needs a column that says train or test (or test_path)"
    parts = with_test(parts, test_share, hint)
    name = files["path"].stem.lower()
    found = dataset_of_parts(name, parts, form, cache, known=known, strict=strict, classes=classes)
    return replace(found, client_hint=_client_hint(names))


@dataclass(frozen=True)
class _Table:
    """Columns of a table by use, as text."""

    file: Path
    cells: dict[str, list[str]]  # use -> (N,)
    lines: list[int]  # (N,) line of each row
    names: list[str]  # of all columns

    def where(self, row: int) -> str:
        return f"{self.file}, line {self.lines[row]}"


def _client_hint(names: Sequence[str]) -> str:
    known = shortened(", ".join(names))
    return f"data.options.columns.client names the column that has them; columns: {known}"


def _checked(columns: object) -> dict[str, str]:
    """Return the option ``columns``.

    Raises:
        FedltError: If it is no mapping of known uses to names.
    """
    if columns is None:
        return {}
    if not isinstance(columns, Mapping):
        raise FedltError(
            f"data.options.columns: must be {{path: ..., label: ...}}, got {columns!r}"
        )
    for use, name in columns.items():
        if use not in _COLUMNS:
            raise FedltError(f"data.options.columns: unknown {use!r}{nearest(str(use), _COLUMNS)}")
        if not isinstance(name, str):
            raise FedltError(f"data.options.columns.{use}: must be a column's name, got {name!r}")
    return dict(columns)


def _read_table(file: Path, columns: Mapping[str, str], *, is_first: bool) -> _Table:
    """Return the used columns of a table.

    Raises:
        FedltError: If a column is missing, or a row has too few cells.
    """
    text = read_text(file, _MOST).removeprefix("\ufeff")
    head = text.partition("\n")[0]
    delimiter = max(",;\t", key=head.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        names = [name.strip() for name in next(reader, [])]
        places = _places(file, names, columns, is_first=is_first)
        cells: dict[str, list[str]] = {use: [] for use in places}
        lines: list[int] = []
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            if len(row) < len(names):
                raise FedltError(
                    f"{file}, line {reader.line_num}: has {len(row)} cells, the head {len(names)}"
                )
            lines.append(reader.line_num)
            for use, column in places.items():
                cells[use].append(row[column].strip())
    except csv.Error as error:
        raise FedltError(f"{file}, line {reader.line_num}: {error}") from error
    return _Table(file, cells, lines, names)


def _places(
    file: Path, names: list[str], columns: Mapping[str, str], *, is_first: bool
) -> dict[str, int]:
    """Return the position of each used column.

    Only the first table needs a column that ``columns`` gives for clients and splits.

    Raises:
        FedltError: If a needed column is missing.
    """
    if not {columns.get(use, use) for use in _COLUMNS} & {*names}:
        raise FedltError(
            f"{file}: the first line must name the columns; it is: {shortened(', '.join(names))}; "
            "data.options.columns says which column is which"
        )
    found = {}
    for use in _COLUMNS:
        name = columns.get(use, use)
        if name in names:
            found[use] = names.index(name)
        elif use in _NEEDED or (use in columns and is_first):
            raise FedltError(
                f"data.options.columns.{use}: {file} has no column {name!r}{nearest(name, names)}"
            )
    return found


def _by_part(table: _Table, own: str, finder: _Finder, *, single: bool) -> dict[str, ImagePart]:
    """Return the parts in a table: by its column ``split`` if it is the only one, else ``own``."""
    count = len(table.lines)
    splits = [own] * count
    if single and "split" in table.cells:
        cells = table.cells["split"]
        splits = [_split_of(cell, table.where(row)) for row, cell in enumerate(cells)]
    parts = {}
    for part in dict.fromkeys(splits):
        rows = [row for row in range(count) if splits[row] == part]
        parts[part] = _part(table, rows, finder)
    return parts


def _split_of(cell: str, where: str) -> str:
    if cell.lower() not in _SPLITS:
        words = f"unknown split {shortened(cell)!r}{nearest(cell.lower(), _SPLITS)}"
        raise FedltError(f"{where}: {words}")
    return _SPLITS[cell.lower()]


def _part(table: _Table, rows: list[int], finder: _Finder) -> ImagePart:
    def cells(use: str) -> list[str]:
        return [table.cells[use][row] for row in rows]

    paths = [finder.find(table.cells["path"][row], table.where(row)) for row in rows]
    clients = np.array(cells("client")) if "client" in table.cells else None
    return ImagePart(
        paths, cells("label"), lambda n: f"{table.where(rows[n])}: {paths[n]}", clients
    )


class _Finder:
    """Search for image files below a folder, by path or else by file name."""

    def __init__(self, top: Path) -> None:
        self._top = top
        self._index: dict[str, list[str]] | None = None

    def find(self, cell: str, where: str) -> Path:
        """Return the file that a cell names.

        Raises:
            FedltError: If there is no such file, or several.
        """
        if not cell:
            raise FedltError(f"{where}: has no path")
        path = self._top / cell
        if os.path.isfile(path) or "/" in cell:
            return path  # a missing file is reported when all files are looked at
        if self._index is None:
            self._index = _index(self._top)
        found = self._index.get(cell, [])
        if len(found) != 1:
            many = f"several images are called so, as {found[0]} and {found[1]}" if found else ""
            raise FedltError(f"{where}: {many or f'no image {cell!r} below {self._top}'}")
        return Path(found[0])


def _index(top: Path) -> dict[str, list[str]]:
    """Return all image files below a folder, by file name with and without suffix."""
    found: dict[str, list[str]] = {}
    for folder, below, files in os.walk(top, followlinks=True):
        below.sort()
        for name in sorted(files):
            stem, suffix = os.path.splitext(name)
            if suffix.lower() in SUFFIXES:
                place = os.path.join(folder, name)
                for key in dict.fromkeys((name, stem)):
                    found.setdefault(key, []).append(place)
    return found
