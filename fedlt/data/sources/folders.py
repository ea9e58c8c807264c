"""Images in one folder per class: ``train/<class>/*``, ``test/<class>/*``, and ``val`` if there."""

from __future__ import annotations

import os
from pathlib import Path

from fedlt.data.dataset import Dataset
from fedlt.data.sources.assembling import ImagePart, dataset_of_parts, with_test
from fedlt.data.sources.decoding import Form
from fedlt.data.sources.image_cache import ImageCache
from fedlt.data.sources.known_sets import find_known
from fedlt.data.sources.numbering import Place
from fedlt.data.sources.pictures import SUFFIXES, picture_channels, picture_size
from fedlt.data.sources.places import need_folder
from fedlt.errors import FedltError

_VALIDATION = ("val", "valid", "validation")  # names of the folder of validation images
_ANNOTATIONS = "val_annotations.txt"  # Tiny-ImageNet: its test images have no labels, val has


def folder(
    *,
    path: str,
    image_size: int | list[int] | None = None,
    channels: int = 3,
    test_share: float | None = None,
    expect: str | None = None,
    strict: bool = True,
    classes: list[str] | None = None,
    cache: ImageCache,
) -> Dataset:
    """Images in one folder per class: train/<class>/*, test/<class>/* (or val/).

    A folder ``val``, ``valid`` or ``validation`` holds the validation images, or the test images
    if there is no ``test``. Without any of these names, the folders in ``path`` are the classes.
    Tiny-ImageNet's own layout is read, too.

    Args:
        path: The folder.
        image_size: Side of the square, or [height, width], that images are brought to; None: all
            have one size already.
        channels: 1, 3 or 4.
        test_share: Share of each class to hold out, where there are no test images.
        expect: A known data set whose numbers are checked.
        strict: Whether a number that differs is an error.
        classes: All classes in order, also those without an image here; None: as the images say.
        cache: Where decoded images are kept.

    Raises:
        FedltError: If a folder is missing, or an image cannot be read.
    """
    known = find_known(expect)
    top = need_folder(path, "data.options.path", known)
    form = Form(picture_size(image_size), picture_channels(channels))
    parts = {name: _read_part(place) for name, place in _part_folders(top).items()}
    if _is_tiny_imagenet(top):
        parts["test"] = _annotated(top / "val" / _ANNOTATIONS)
    hint = f"{top}: has no folder 'test', 'val' or 'valid' of test images"
    parts = with_test(parts, test_share, hint)
    return dataset_of_parts(
        top.name or "folder", parts, form, cache, known=known, strict=strict, classes=classes
    )


def _is_tiny_imagenet(top: Path) -> bool:
    return (top / "val" / _ANNOTATIONS).is_file()


def _part_folders(top: Path) -> dict[str, Path]:
    """Return the folder of each part."""
    train, test = top / "train", top / "test"
    val = next((top / name for name in _VALIDATION if (top / name).is_dir()), None)
    if not train.is_dir():
        if test.is_dir() or val is not None:
            raise FedltError(f"{top}: has no folder 'train'; it has {', '.join(_folders(top))}")
        return {"train": top}
    if _is_tiny_imagenet(top):
        return {"train": train}
    found = {"train": train}
    if test.is_dir():
        found |= {"test": test} if val is None else {"test": test, "val": val}
    elif val is not None:
        found["test"] = val
    return found


def _folders(top: Path) -> list[str]:
    names = sorted(one.name for one in os.scandir(top) if one.is_dir())
    return [name for name in names if not name.startswith(".")]


def _read_part(top: Path) -> ImagePart:
    """Return the images below each class's folder, sorted by class and path.

    Raises:
        FedltError: If there are no classes, or no images in them.
    """
    classes = _folders(top)
    if not classes:
        raise FedltError(f"{top}: has no folders; each class needs one, with its images")
    paths: list[Path] = []
    labels: list[str] = []
    for name in classes:
        found = _images_below(top / name)
        paths += found
        labels += [name] * len(found)
    if not paths:
        raise FedltError(f"{top}: no images in its folders {', '.join(classes[:5])}")
    return ImagePart(paths, labels, _naming(paths))


def _naming(paths: list[Path]) -> Place:
    return lambda row: str(paths[row])


def _images_below(top: Path) -> list[Path]:
    """Return all image files below a folder, sorted; hidden files are left out."""
    found = []
    for folder, below, files in os.walk(top, followlinks=True):
        below.sort()
        for name in files:
            suffix = os.path.splitext(name)[1].lower()
            if suffix in SUFFIXES and not name.startswith("."):
                found.append(Path(folder, name))
    return sorted(found)


def _annotated(file: Path) -> ImagePart:
    """Return the images that Tiny-ImageNet's annotations list: file and class, tab-separated.

    Raises:
        FedltError: If a line has no class.
    """
    paths, labels = [], []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        fields = line.split("\t")
        if len(fields) < 2:
            raise FedltError(f"{file}, line {number}: needs a file and its class")
        paths.append(file.parent / "images" / fields[0])
        labels.append(fields[1])
    return ImagePart(paths, labels, _naming(paths))
