"""Small sets of images on disk, the same as folders, lists, a table, arrays and a Hugging Face set.

The images are noise, drawn anew for each path, so that two images are never alike.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

COUNTS = {"train": {"ant": 5, "bee": 3, "cat dog": 1}, "test": {"ant": 2, "bee": 2}}
SIZE = (12, 20)  # height and width


def noise(key: str, size: tuple[int, ...]) -> np.ndarray:
    """Return the pixels (H, W[, Ch]) of the image with this key."""
    return np.random.default_rng(zlib.crc32(key.encode())).integers(0, 256, size, dtype=np.uint8)


def write_image(path: Path, size: tuple[int, ...] = (*SIZE, 3)) -> None:
    """Write the noise of a path's last three names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = noise("/".join(path.parts[-3:]), size)
    Image.fromarray(pixels).save(path)


def rows(counts: Mapping[str, Mapping[str, int]] = COUNTS) -> list[tuple[str, str, str, str]]:
    """Return part, relative path, class and client of every image."""
    return [
        (part, f"{part}/{name}/{number}.png", name, f"user {number % 2}")
        for part, classes in counts.items()
        for name, count in classes.items()
        for number in range(count)
    ]


def write_tree(top: Path, counts: Mapping[str, Mapping[str, int]] = COUNTS) -> Path:
    """Write ``<part>/<class>/<number>.png`` and return the folder."""
    for _, path, _, _ in rows(counts):
        write_image(top / path)
    return top


def write_lists(top: Path, *, clients: bool = False) -> None:
    """Write ``train.txt`` and ``test.txt`` beside the tree; classes are 1, 2, 3 there."""
    names = ["ant", "bee", "cat dog"]
    for part in COUNTS:
        lines = [
            f"{path} {1 + names.index(name)}{' ' + who.replace(' ', '') if clients else ''}\n"
            for own, path, name, who in rows()
            if own == part
        ]
        (top / f"{part}.txt").write_text("".join(lines))


def write_table(top: Path) -> Path:
    """Write ``all.csv`` beside the tree, with names of columns that are not fedlt's."""
    file = top / "all.csv"
    lines = [f"{path};{name};{who};{part}\n" for part, path, name, who in rows()]
    file.write_text("image file;species;observer;part\n" + "".join(lines))
    return file


COLUMNS = {"path": "image file", "label": "species", "client": "observer", "split": "part"}


def arrays(*, clients: bool = True) -> dict[str, np.ndarray]:
    """Return the same images as arrays with channels last, labels (N, 1) and client ids."""
    found = {}
    for part in COUNTS:
        own = [row for row in rows() if row[0] == part]
        pixels = [noise("/".join(path.split("/")), (*SIZE, 3)) for _, path, _, _ in own]
        found[f"{part}_images"] = np.stack(pixels)
        found[f"{part}_labels"] = np.array([[name] for _, _, name, _ in own])
        if clients:
            found[f"{part}_clients"] = np.array([who for *_, who in own])
    return found


def save_hugging_face(top: Path, tree: Path) -> Path:
    """Write the tree as ``save_to_disk`` does and return the folder."""
    import datasets

    datasets.disable_progress_bars()
    parts = {}
    for part in COUNTS:
        own = [row for row in rows() if row[0] == part]
        columns = {
            "image": [str(tree / path) for _, path, _, _ in own],
            "label": [name for _, _, name, _ in own],
            "client": [who for *_, who in own],
        }
        found = datasets.Dataset.from_dict(columns)
        found = found.cast_column("image", datasets.Image())
        names = datasets.ClassLabel(names=["cat dog", "bee", "ant"])  # in an order of its own
        parts[part] = found.cast_column("label", names)
    datasets.DatasetDict(parts).save_to_disk(str(top))
    return top
