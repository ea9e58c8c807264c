"""``fedlt data prepare``: decode the images of a file's data set into the cache."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from fedlt.cli.arguments import FileArgument, Overrides
from fedlt.cli.screen import screen

if TYPE_CHECKING:
    from fedlt.data import Dataset
    from fedlt.data.sources.image_cache import ImageCache


class DataStep(StrEnum):
    """Step that ``fedlt data`` does with the data of a file."""

    PREPARE = "prepare"


def data(
    step: Annotated[DataStep, typer.Argument(metavar="prepare", help="The step: prepare.")],
    file: FileArgument,
    overrides: Overrides = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, metavar="N", help="Threads that decode; one per core."),
    ] = None,
) -> None:
    """Decode the images of an experiment's data set once, into memory-mapped files.

    A run does the same by itself if the files are missing. Files that are there are kept. Of a
    comparison or a recipe, the data of the common part of all rows are prepared.
    """
    from fedlt.comparing.common import read_common
    from fedlt.config.experiments import find_experiment
    from fedlt.data.datasets import check_name, is_cached, load_dataset
    from fedlt.data.sources.image_cache import ImageCache
    from fedlt.data.torchvision_sets import data_root

    common, lines = read_common(find_experiment(file), overrides or [])
    section = common.data
    screen().note(*lines)
    check_name(section.dataset)
    if not is_cached(section.dataset):
        screen().tell(f"data set {section.dataset}: no image files to decode; nothing to prepare")
        screen().document({"dataset": section.dataset, "files": []})
        return
    cache = ImageCache(data_root(section.root) / "cache", workers=workers)
    found = load_dataset(section.dataset, root=section.root, options=section.options, cache=cache)
    _show(found, cache)


def _show(found: Dataset, cache: ImageCache) -> None:
    from fedlt.data.federated import strangers_note
    from fedlt.data.sources.image_cache import described

    sizes = {"train": found.train_images, "val": found.validation_images, "test": found.test_images}
    images = {part: len(one) for part, one in sizes.items() if one is not None}
    shape = found.train_images.shape[1:]
    counts = ", ".join(f"{count:,} {part}" for part, count in images.items())
    sides = " x ".join(map(str, shape))
    screen().tell(
        f"{found.name}: {found.num_classes} classes; images: {counts}; each {sides}",
        *map(described, cache.written),
    )
    for part in ("validation", "test"):
        if line := strangers_note(found.strangers.get(part, {}), part, named=True):
            screen().note(line)
    if not cache.written:
        screen().tell("the arrays are read where they are; nothing to prepare")
    content = {"name": found.name, "classes": found.num_classes, "images": images, "shape": shape}
    screen().document({**content, "files": [asdict(one) for one in cache.written]})
