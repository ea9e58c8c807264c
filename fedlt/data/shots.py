"""Shot groups: many, medium and few classes, from the class counts of a run's training images.

The groups depend on the counts alone, whether the long tail was drawn or is the data's own. They
are fixed before the first round and saved as class lists; runs with different class lists are not
compared. The thresholds 100 and 20 are those of Liu et al., "Large-Scale Long-Tailed Recognition in
an Open World", CVPR 2019, arXiv:1904.05160; the cumulative rule is FedLoGe's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedlt.data.arrays import IntArray
from fedlt.errors import FedltError, nearest

GROUPS = ("many", "medium", "few")
SCHEMES = ("auto", "count", "rank", "cumulative", "given")


@dataclass(frozen=True)
class ShotGroups:
    """Class lists of the three groups; the metrics of an empty group are None."""

    scheme: str  # rule that made the groups: count, rank, cumulative, given, step or none
    many: tuple[int, ...] = ()  # class ids, ascending
    medium: tuple[int, ...] = ()
    few: tuple[int, ...] = ()

    def items(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Return ``(name, class ids)`` of the three groups in the order many, medium, few."""
        return (("many", self.many), ("medium", self.medium), ("few", self.few))

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able dictionary; :meth:`from_json` is its inverse."""
        return {"scheme": self.scheme, **{name: list(classes) for name, classes in self.items()}}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ShotGroups:
        """Return the groups stored in a dictionary of :meth:`to_json`."""
        lists = {name: tuple(int(c) for c in value[name]) for name in GROUPS}
        return cls(scheme=str(value["scheme"]), **lists)


def _group(
    scheme: str, many: Sequence[int], medium: Sequence[int], few: Sequence[int]
) -> ShotGroups:
    ordered = [tuple(sorted(int(c) for c in classes)) for classes in (many, medium, few)]
    return ShotGroups(scheme, *ordered)


def _by_count(counts: IntArray) -> ShotGroups:
    many, few = counts > 100, counts < 20
    parts = [np.flatnonzero(mask).tolist() for mask in (many, ~many & ~few, few)]
    return _group("count", *parts)


def _descending(counts: IntArray) -> list[int]:
    """Return the class ids by falling count, ties by class id."""
    order: list[int] = np.argsort(-counts, kind="stable").tolist()
    return order


def _by_rank(counts: IntArray) -> ShotGroups:
    order, size = _descending(counts), round(0.3 * len(counts))
    end = len(order) - size
    return _group("rank", order[:size], order[size:end], order[end:])


def cumulative_groups(class_counts: npt.ArrayLike) -> ShotGroups:
    """Return groups by the cumulative share of images (FedLoGe's rule).

    Classes are sorted by falling count, ties by class id. The many classes end with the class where
    the cumulative share passes 75 %. The medium classes end with the class where the share passes
    95 %. All other classes are few. Integer arithmetic avoids rounding.

    Args:
        class_counts: (C,) images per class; all zeros give empty groups.
    """
    counts = np.asarray(class_counts, dtype=np.int64)
    order = _descending(counts)
    share = np.cumsum(counts[order])
    total = int(share[-1])
    if total == 0:
        return ShotGroups("cumulative")
    first = int(np.argmax(share * 100 > total * 75)) + 1
    second = int(np.argmax(share * 100 > total * 95)) + 1
    return _group("cumulative", order[:first], order[first:second], order[second:])


def _by_step(counts: IntArray) -> ShotGroups:
    many = counts == counts.max()
    return _group("step", np.flatnonzero(many).tolist(), (), np.flatnonzero(~many).tolist())


def _auto(counts: IntArray) -> ShotGroups:
    if 2 * int(counts.max()) < 3 * int(counts.min()):
        return ShotGroups("none")
    if len(np.unique(counts)) == 2:
        return _by_step(counts)
    groups = _by_count(counts)
    enough = all(10 * len(classes) >= len(counts) for _, classes in groups.items())
    return groups if enough else _by_rank(counts)


def shot_groups(
    class_counts: npt.ArrayLike,
    *,
    scheme: str = "auto",
    given: Mapping[str, Sequence[int]] | None = None,
) -> ShotGroups:
    """Return the many, medium and few classes; a class without an image is in no group.

    * ``count``: many > 100 images, medium 20 to 100, few < 20.
    * ``rank``: classes sorted by falling count, ties by class id; the first round(0.3 C) classes
      are many, the last round(0.3 C) are few.
    * ``cumulative``: see :func:`cumulative_groups`.
    * ``given``: the lists in ``given``.
    * ``auto``: no groups if the largest class has less than 1.5 times the images of the smallest.
      If classes have only two sizes, as under a ``step`` profile, large classes are many and small
      classes few. Otherwise ``count`` if each group holds at least 10 % of the classes, else
      ``rank``.

    Args:
        class_counts: (C,) training images per class, over all clients.
        scheme: One of :data:`SCHEMES`.
        given: Class ids of ``many``, ``medium`` and ``few``; used by the scheme ``given`` only.

    Returns:
        The groups, with the name of the rule that made them.

    Raises:
        FedltError: For an unknown scheme, lists that do not fit, or ``rank`` or ``cumulative``
            if classes of equal size would fall into different groups by their ids alone.
    """
    counts = np.asarray(class_counts, dtype=np.int64)
    if scheme == "given":
        return listed_groups(given or {}, len(counts), "evaluate.shot_classes")
    rules = {"auto": _auto, "count": _by_count, "rank": _by_rank, "cumulative": cumulative_groups}
    if scheme not in rules:
        raise FedltError(f"evaluate.shots: unknown scheme {scheme!r}{nearest(scheme, SCHEMES)}")
    held = np.flatnonzero(counts)
    groups = rules[scheme](counts[held] if len(held) else counts)
    groups = _renumbered(groups, held) if len(held) else groups
    if scheme in ("rank", "cumulative"):
        _check_order(groups, counts)
    return groups


def _renumbered(groups: ShotGroups, held: IntArray) -> ShotGroups:
    """Return groups of the classes 0, 1, ... as groups of the classes ``held``."""
    own = {name: tuple(held[list(classes)].tolist()) for name, classes in groups.items()}
    return ShotGroups(groups.scheme, **own)


def _check_order(groups: ShotGroups, counts: IntArray) -> None:
    """Refuse groups by falling count if ties would separate classes by their ids alone."""
    sizes = np.unique(counts).tolist()
    parts = [set(counts[list(classes)].tolist()) for _, classes in groups.items()]
    if len(sizes) < 3 and len([size for part in parts for size in part]) > len(sizes):
        words = " or ".join(map(str, sizes))
        raise FedltError(
            f"evaluate.shots: {groups.scheme} would tell equal classes apart by their ids: every "
            f"class has {words} training images; auto, count and given make groups here"
        )


def groups_note(groups: ShotGroups, class_counts: npt.ArrayLike) -> str:
    """Return one line with the sizes of the groups, or the reason why there are no groups."""
    counts = np.asarray(class_counts, dtype=np.int64)
    if groups.scheme != "none":
        sizes = ", ".join(f"{name} {len(classes)}" for name, classes in groups.items())
        return f"shot groups by {groups.scheme}: {sizes} classes"
    if counts.min() == counts.max():
        return f"no shot groups: every class has {counts.max()} training images"
    return (
        f"no shot groups: the largest class has {counts.max() / counts.min():.3g} times the "
        "images of the smallest; evaluate.shots: auto makes groups from 1.5 upwards"
    )


def listed_groups(lists: Mapping[str, Sequence[int]], num_classes: int, where: str) -> ShotGroups:
    """Return the groups made from class lists; a class in no list belongs to no group.

    Args:
        lists: Class ids of ``many``, ``medium`` and ``few``; a missing list is empty.
        num_classes: C.
        where: Beginning of an error message, such as the name of the option.

    Raises:
        FedltError: If a class is named twice or does not exist, or no class is named.
    """
    named = [label for name in GROUPS for label in lists.get(name, ())]
    for label in named:
        if not 0 <= label < num_classes:
            raise FedltError(f"{where}: there is no class {label}, only 0 to {num_classes - 1}")
    if len(set(named)) < len(named):
        twice = sorted(named)[int(np.diff(sorted(named)).argmin())]
        raise FedltError(f"{where}: class {twice} is named twice")
    if not named:
        raise FedltError(f"{where}: no class is named")
    return _group("given", *(lists.get(name, ()) for name in GROUPS))


def parse_groups(text: str, num_classes: int) -> ShotGroups:
    """Return the groups in a text of class ids ``many/medium/few``, such as ``0-2/3-6/7,8,9``.

    Raises:
        FedltError: If the text has another form, or a class is in two groups or does not exist.
    """
    parts = text.split("/")
    if len(parts) != len(GROUPS):
        raise FedltError(f"shots {text!r}: expected many/medium/few, such as 0-2/3-6/7-9")
    lists: list[list[int]] = []
    for part in parts:
        words = [word.partition("-") for word in part.split(",") if word.strip()]
        try:
            spans = [(int(low), int(high) if dash else int(low)) for low, dash, high in words]
        except ValueError:
            raise FedltError(f"shots {text!r}: {part!r} is not a list such as 0-2,5") from None
        lists.append([label for low, high in spans for label in range(low, high + 1)])
    return listed_groups(dict(zip(GROUPS, lists, strict=True)), num_classes, f"shots {text!r}")
