"""List files: ``path label`` a line, as ImageNet-LT, Places-LT and iNaturalist 2018 have them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath

from fedlt.data.dataset import Dataset
from fedlt.data.sources.assembling import ImagePart, dataset_of_parts, with_test
from fedlt.data.sources.decoding import Form
from fedlt.data.sources.image_cache import ImageCache
from fedlt.data.sources.known_sets import find_known
from fedlt.data.sources.numbering import Place
from fedlt.data.sources.pictures import picture_channels, picture_size
from fedlt.data.sources.places import need_tables
from fedlt.errors import FedltError
from fedlt.machine.reading import read_text

_MOST = 1 << 30  # bytes of a list file


def list_files(
    *,
    train: str,
    test: str | None = None,
    val: str | None = None,
    root: str | None = None,
    image_size: int | list[int] | None = None,
    channels: int = 3,
    clients: bool = False,
    test_share: float | None = None,
    expect: str | None = None,
    strict: bool = True,
    classes: list[str] | None = None,
    cache: ImageCache,
) -> Dataset:
    """List files with `path label` a line (ImageNet-LT, Places-LT, iNaturalist).

    A path may hold spaces: a line is split at its last space. Where ILSVRC's validation images lie
    in one folder but the list has class folders, or the reverse, the layout of the disk is used.

    Args:
        train: List of the training images.
        test: List of the test images.
        val: List of the validation images.
        root: Folder in which paths of the lists begin; None: the folder of ``train``.
        image_size: As in :func:`fedlt.data.sources.folders.folder`.
        channels: 1, 3 or 4.
        clients: True: a line is ``path label client``; ``-`` means no client.
        test_share: Share of each class to hold out, where there is no test list.
        expect: A known data set whose numbers are checked; None: as the name of ``train`` says.
        strict: Whether a number that differs is an error.
        classes: All classes in order, also those without an image here; None: as the images say.
        cache: Where decoded images are kept.

    Raises:
        FedltError: If a file is missing or a line cannot be read, with file and line.
    """
    known = find_known(expect, train)
    form = Form(picture_size(image_size), picture_channels(channels))
    files, top = need_tables({"train": train, "val": val, "test": test}, root, known)
    parts = {part: _read_list(file, top, clients=clients) for part, file in files.items()}
    parts = {
        part: one if part == "train" else _as_on_disk(one, parts["train"], top, files[part], cache)
        for part, one in parts.items()
    }
    parts = with_test(parts, test_share, "data.options.test: needs a list of test images")
    name = files["train"].stem.lower().removesuffix("train").rstrip("_-") or top.name or "list"
    found = dataset_of_parts(name, parts, form, cache, known=known, strict=strict, classes=classes)
    hint = "data.options.clients=true reads them from the last word of a line: path label client"
    return replace(found, client_hint=hint)


def _read_list(file: Path, top: Path, *, clients: bool) -> ImagePart:
    """Return the images of a list file.

    Raises:
        FedltError: If a line has too few words.
    """
    paths: list[Path] = []
    words: list[list[str]] = []
    lines: list[int] = []
    for number, line in enumerate(read_text(file, _MOST).split("\n"), 1):
        if not line.strip():
            continue
        fields = line.strip().rsplit(maxsplit=1 + clients)
        if len(fields) < 2 + clients:
            wanted = "path, label and client" if clients else "path and label"
            raise FedltError(f"{file}, line {number}: needs {wanted}, got {line.strip()[:100]!r}")
        paths.append(top / fields[0])
        words.append(fields[1:])
        lines.append(number)
    labels = [one[0] for one in words]
    owners = [one[1] for one in words] if clients else None
    return ImagePart(paths, labels, _numbered(file, lines, paths), owners)


def _numbered(file: Path, lines: list[int], paths: list[Path]) -> Place:
    return lambda row: f"{file}, line {lines[row]}: {paths[row]}"


def _as_on_disk(
    part: ImagePart, train: ImagePart, top: Path, file: Path, cache: ImageCache
) -> ImagePart:
    """Return a part with paths as the disk has them, with class folders or without.

    The first image decides. A class folder is named as that of the class's training images.
    """
    paths = [Path(str(path)) for path in part.sources]
    labels = [str(label) for label in part.labels]  # type: ignore[union-attr]  # a list of text
    if not paths or paths[0].is_file():
        return part
    folders = {
        str(label): Path(str(path)).parent.name
        for path, label in zip(train.sources, train.labels, strict=True)  # type: ignore[arg-type]
    }
    flat = [path.parent.parent / path.name for path in paths]
    nested = [
        path.parent / folders.get(label, "") / path.name
        for path, label in zip(paths, labels, strict=True)
    ]
    for found, words in ((flat, "no class folders"), (nested, "class folders")):
        if found[0].is_file():
            place = PurePosixPath(found[0].parent.relative_to(top))
            cache.note(f"{file.name}: its images lie in {words} here ({place}/{found[0].name})")
            return ImagePart(found, labels, _renamed(part.place, found), part.clients)
    return part


def _renamed(place: Place, paths: list[Path]) -> Place:
    return lambda row: f"{place(row)}, here {paths[row]}"
