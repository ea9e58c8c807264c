"""The headline: which number of the generic view comes first, decided by the images scored on.

On a balanced set accuracy is the mean recall, and comes first. On any other set a model that knows
the large classes alone can have the highest accuracy, so ``generic/balanced`` comes first and the
accuracy stands beside it. Tables, verdicts, searches, pages and progress lines all ask here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedlt.data.arrays import IntArray

KEY = "scored_on"  # of a result: what :meth:`ScoredSet.to_json` returns
_NAMED = 10  # classes that a line names


@dataclass(frozen=True)
class ScoredSet:
    """The images that a run is scored on, counted by class: its test or its validation set."""

    counts: tuple[int, ...]  # (C,) images per class
    split: str = "final"  # final: the test set; tune: the validation set

    @property
    def balanced(self) -> bool:
        """Whether every class has the same number of images, and at least one."""
        return not self.counts or (min(self.counts) == max(self.counts) > 0)

    @property
    def without(self) -> tuple[int, ...]:
        """Class ids without an image: trained, counted, and of no weight in any mean."""
        return tuple(label for label, images in enumerate(self.counts) if images == 0)

    @property
    def words(self) -> tuple[str, ...]:
        """The words after ``generic/`` that sum up all classes, the headline first."""
        return ("accuracy",) if self.balanced else ("balanced", "accuracy")

    @property
    def columns(self) -> dict[str, str]:
        """Heading -> word after ``generic/``, of the columns that sum up all classes."""
        return {"all": "accuracy"} if self.balanced else {word: word for word in self.words}

    @property
    def headlines(self) -> dict[str, str]:
        """View -> the metric that comes first in it.

        A personal accuracy weighs recalls by the client's own mix, so no test set tilts it.
        """
        return {"generic": f"generic/{self.words[0]}", "personal": "personal/accuracy"}

    @property
    def name(self) -> str:
        """``test set`` or ``validation set``."""
        return "validation set" if self.split == "tune" else "test set"

    def told(self, metrics: Mapping[str, Any]) -> list[str]:
        """Return the headlines that ``metrics`` has, as ``generic 61.2 %``."""
        named = {view: (name, metrics.get(name)) for view, name in self.headlines.items()}
        known = {view: (name, value) for view, (name, value) in named.items() if value is not None}
        return [
            f"{view}{' balanced' if name.endswith('/balanced') else ''} {100 * value:z.1f} %"
            for view, (name, value) in known.items()
        ]

    def note(self, class_names: Sequence[str] = ()) -> str:
        """Return one line about a set that is not balanced; "" for one that is.

        Args:
            class_names: (C,) names to call the classes by; their ids where there are none.
        """
        if self.balanced:
            return ""
        known = [images for images in self.counts if images]
        low, high = min(known), max(known)
        span = f"{low}" if low == high else f"{low} to {high}"
        line = f"the {self.name} is not balanced: {span} images a class"
        if self.without:
            names = [str(class_names[c]) if class_names else str(c) for c in self.without]
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            has, weighs = ("has", "weighs") if len(names) == 1 else ("have", "weigh")
            line += f"; {len(names)} of {len(self.counts)} classes {has} none"
            line += f" ({', '.join(names[:_NAMED])}{more}) and {weighs} nothing"
        return (
            f"{line}; balanced is the mean recall over the classes with images and comes before "
            "accuracy"
        )

    @classmethod
    def of(cls, labels: IntArray, num_classes: int, split: str) -> ScoredSet:
        """Count the images by their labels (M,)."""
        return cls(tuple(np.bincount(labels, minlength=num_classes).tolist()), split)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able dictionary; :meth:`from_json` is its inverse."""
        counts, without = list(self.counts), list(self.without)
        return {"balanced": self.balanced, "without": without, "counts": counts}

    @classmethod
    def from_json(cls, value: Mapping[str, Any], split: str) -> ScoredSet:
        """Rebuild the set from :meth:`to_json`'s dictionary."""
        return cls(tuple(int(images) for images in value["counts"]), split)


def scored_set(result: Mapping[str, Any]) -> ScoredSet:
    """Return the images that a result's numbers are counted on, as the result tells them.

    Args:
        result: The content of ``result.json``; one that tells no counts stands for a balanced set.
    """
    split = str(result.get("split", "final"))
    return ScoredSet.from_json(result.get(KEY) or {"counts": []}, split)


def headlines(result: Mapping[str, Any]) -> dict[str, str]:
    """Return view -> the metric that comes first in it, for the images of a result."""
    return scored_set(result).headlines


def mass_note(results: Sequence[Mapping[str, Any]], which: str) -> str:
    """Return one line about what classes without test images cost the personal view; "" for none.

    Args:
        results: Of one row, one a seed.
        which: A moment of theirs.
    """
    parts = []
    if lost := _mean_over_seeds(results, which, "personal/mass_lost"):
        parts.append(
            f"{100 * lost:.1f} % of a client's images, in the mean, are of classes without test "
            "images; its other classes take their weight"
        )
    without = any(scored_set(result).without for result in results)
    if without and (left_out := _mean_over_seeds(results, which, "personal/excluded")):
        clients = "client" if left_out == 1 else "clients"
        parts.append(f"{left_out:g} {clients} without an image of a tested class left out")
    return f"personal view: {'; '.join(parts)}" if parts else ""


def _mean_over_seeds(results: Sequence[Mapping[str, Any]], which: str, metric: str) -> float:
    """Return a metric's mean over the seeds; 0 stands for one that a run does not have."""
    found = [(result.get(which) or {}).get(metric) or 0.0 for result in results]
    return sum(found) / max(len(found), 1)
