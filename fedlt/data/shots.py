"""Shot groups: many, medium and few classes, from the global training counts of a run.

The groups come from the counts alone, whether a long tail was drawn or is the data's own. They are
fixed before the first round and saved with their class lists; runs whose class lists
differ are not compared. The thresholds 100 and 20 are those of Liu et al., "Large-Scale Long-Tailed
Recognition in an Open World", CVPR 2019, arXiv:1904.05160; the cumulative rule is FedLoGe's.
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
    """The class lists of the three groups; an absent group is empty and its metrics are None."""

    scheme: str  # the rule that made them: count, rank, cumulative, given, step or none
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
        """Rebuild the groups from :meth:`to_json`'s dictionary."""
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
    """Group classes by their cumulative share of all images (FedLoGe's rule).

    Classes are sorted by falling count, ties by class id. Many runs up to and including the class
    where the cumulative share passes 75 %, medium up to and including the one where it passes 95 %,
    few is the rest. All-integer arithmetic: no rounding decides.

    Args:
        class_counts: (C,) images per class; an all-zero row has no groups.
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
    """Split the classes into many, medium and few.

    ``count``: many > 100 images, medium 20 to 100, few < 20. ``rank``: by falling count, ties by
    class id, the first and the last round(0.3 C) classes are many and few. ``cumulative``: see
    :func:`cumulative_groups`. ``given``: the lists in ``given``. ``auto``: no groups where the
    largest class has less than 1.5 times the images of the smallest; where classes have two sizes
    only, as under a ``step`` profile, many are the large and few the small ones; otherwise
    ``count`` if each group holds at least 10 % of the classes, else ``rank``.

    Args:
        class_counts: (C,) global training images per class, however they came to be unequal.
        scheme: One of :data:`SCHEMES`.
        given: Class ids of ``many``, ``medium`` and ``few``; read by ``given`` only.

    Returns:
        The groups, with the name of the rule that made them.

    Raises:
        FedltError: For an unknown scheme, lists that do not fit, or ``rank`` or ``cumulative``
            where only class ids would tell one group from another.
    """
    counts = np.asarray(class_counts, dtype=np.int64)
    if scheme == "given":
        return listed_groups(given or {}, len(counts), "evaluate.shot_classes")
    rules = {"auto": _auto, "count": _by_count, "rank": _by_rank, "cumulative": cumulative_groups}
    if scheme not in rules:
        raise FedltError(f"evaluate.shots: unknown scheme {scheme!r}{nearest(scheme, SCHEMES)}")
    groups = rules[scheme](counts)
    if scheme in ("rank", "cumulative"):
        _check_order(groups, counts)
    return groups


def _check_order(groups: ShotGroups, counts: IntArray) -> None:
    """Refuse groups by falling count where the counts give no order to speak of."""
    sizes = np.unique(counts).tolist()
    parts = [set(counts[list(classes)].tolist()) for _, classes in groups.items()]
    if len(sizes) < 3 and len([size for part in parts for size in part]) > len(sizes):
        words = " or ".join(map(str, sizes))
        raise FedltError(
            f"evaluate.shots: {groups.scheme} would tell equal classes apart by their ids: every "
            f"class has {words} training images; auto, count and given make groups here"
        )


def groups_note(groups: ShotGroups, class_counts: npt.ArrayLike) -> str:
    """Return one line that says which groups the classes are in, or why there are none."""
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
    """Return the groups that class lists name; a class in no list is in no group.

    Args:
        lists: Class ids of ``many``, ``medium`` and ``few``; a missing list is empty.
        num_classes: C.
        where: What begins an error.

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
    """Return groups given as class ids, ``many/medium/few``, such as ``0-2/3-6/7,8,9``.

    Raises:
        FedltError: If it is not of that form, or a class is in two groups or does not exist.
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
