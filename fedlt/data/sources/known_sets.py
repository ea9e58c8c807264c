"""Data sets whose numbers of images are published, and where their files come from.

A list, a table or a file of arrays is recognised by its published file name. Where images lie in
folders, the option ``expect`` names the data set.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fedlt.errors import FedltError, nearest


@dataclass(frozen=True)
class KnownSet:
    """Published numbers of a data set."""

    title: str
    num_classes: int
    counts: Mapping[str, int]  # part -> images
    obtain: str  # what to download, in one sentence
    prefixes: tuple[str, ...] = ()  # of file names, in small letters and without suffix


def _medmnist(title: str, flag: str, num_classes: int, train: int, val: int, test: int) -> KnownSet:
    counts = {"train": train, "val": val, "test": test}
    obtain = f"download {flag}.npz from https://medmnist.com"
    return KnownSet(title, num_classes, counts, obtain, (flag,))


_INAT_USER = "https://github.com/google-research/google-research, federated_vision_datasets"
KNOWN_SETS = {
    "imagenet_lt": KnownSet(
        "ImageNet-LT",
        1000,
        {"train": 115_846, "val": 20_000, "test": 50_000},
        "download ImageNet_LT_train.txt, ImageNet_LT_val.txt and ImageNet_LT_test.txt from"
        " https://liuziwei7.github.io/projects/LongTail.html, and the folders train and val of"
        " ILSVRC 2012 from https://image-net.org",
        ("imagenet_lt",),
    ),
    "places_lt": KnownSet(
        "Places-LT",
        365,
        {"train": 62_500, "val": 7_300, "test": 36_500},
        "download Places_LT_train.txt, Places_LT_val.txt and Places_LT_test.txt from"
        " https://liuziwei7.github.io/projects/LongTail.html, and the images of Places365-Standard"
        " from http://places2.csail.mit.edu",
        ("places_lt",),
    ),
    "inaturalist18": KnownSet(
        "iNaturalist 2018",
        8142,
        {"train": 437_513, "test": 24_426},
        "download iNaturalist18_train.txt and iNaturalist18_val.txt, and the images of iNaturalist"
        " 2018 from https://github.com/visipedia/inat_comp",
        ("inaturalist18",),
    ),
    "inat_user": KnownSet(
        "iNaturalist-User-120k",
        1203,
        {"train": 120_300, "test": 35_641},
        f"download inaturalist-user-120k.zip ({_INAT_USER}), and the images of iNaturalist 2017"
        " from https://github.com/visipedia/inat_comp",
        ("federated_train_user_120k",),
    ),
    "tiny_imagenet": KnownSet(
        "Tiny-ImageNet",
        200,
        {"train": 100_000, "test": 10_000},
        "download and unpack http://cs231n.stanford.edu/tiny-imagenet-200.zip",
    ),
    "cinic10": KnownSet(
        "CINIC-10",
        10,
        {"train": 90_000, "val": 90_000, "test": 90_000},
        "download and unpack CINIC-10.tar.gz from https://datashare.ed.ac.uk/handle/10283/3192",
    ),
    "dermamnist": _medmnist("DermaMNIST", "dermamnist", 7, 7_007, 1_003, 2_005),
    "bloodmnist": _medmnist("BloodMNIST", "bloodmnist", 8, 11_959, 1_712, 3_421),
    "pathmnist": _medmnist("PathMNIST", "pathmnist", 9, 89_996, 10_004, 7_180),
    "organamnist": _medmnist("OrganAMNIST", "organamnist", 11, 34_561, 6_491, 17_778),
    "organcmnist": _medmnist("OrganCMNIST", "organcmnist", 11, 12_975, 2_392, 8_216),
    "organsmnist": _medmnist("OrganSMNIST", "organsmnist", 11, 13_932, 2_452, 8_827),
    "tissuemnist": _medmnist("TissueMNIST", "tissuemnist", 8, 165_466, 23_640, 47_280),
}


def find_known(expect: object, path: str | Path | None = None) -> KnownSet | None:
    """Return the known data set that an option or a file name means, or None.

    Args:
        expect: The option ``expect``: a name of :data:`KNOWN_SETS`, or None.
        path: The file of the training images.

    Raises:
        FedltError: If there is no data set of that name.
    """
    if expect is not None:
        if expect not in KNOWN_SETS:
            raise FedltError(
                f"data.options.expect: unknown {expect!r}{nearest(str(expect), KNOWN_SETS)}"
            )
        return KNOWN_SETS[str(expect)]
    stem = "" if path is None else Path(path).stem.lower()
    for known in KNOWN_SETS.values():
        for prefix in known.prefixes:
            if stem == prefix or stem.startswith(f"{prefix}_"):
                return known
    return None


def check_counts(
    known: KnownSet | None, counts: Mapping[str, int], num_classes: int, *, strict: bool
) -> Iterable[str]:
    """Return lines about numbers that differ from the published ones.

    Args:
        known: The data set; None: nothing is known.
        counts: Part -> images found.
        num_classes: Classes found.
        strict: True to refuse a difference.

    Raises:
        FedltError: If a number differs and ``strict`` is true.
    """
    if known is None:
        return []
    pairs = [(f"{part} images", counts.get(part), n) for part, n in known.counts.items()]
    pairs.append(("classes", num_classes, known.num_classes))
    lines = [
        f"{known.title}: {found:,} {what} found, {published:,} expected"
        for what, found, published in pairs
        if found is not None and found != published
    ]
    if lines and strict:
        raise FedltError(f"{lines[0]}; data.options.strict=false goes on all the same")
    return lines
