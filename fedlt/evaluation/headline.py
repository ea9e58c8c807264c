"""Headline metric of the generic view, which depends on whether the scored images are balanced.

On a balanced set, accuracy equals the mean recall and is the headline. On any other set, a model
that knows only the large classes can have the highest accuracy. There ``generic/balanced`` (mean
recall) is the headline and accuracy is shown second. Tables, verdicts, searches, pages and progress
lines all use this module.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedlt.data.arrays import IntArray

KEY = "scored_on"  # key in a result of the dictionary from :meth:`ScoredSet.to_json`
_NAMED = 10  # largest number of classes that a line names


@dataclass(frozen=True)
class ScoredSet:
    """Class counts of the images that a run is scored on: its test set or validation set."""

    counts: tuple[int, ...]  # (C,) images per class; (): there are no images
    split: str = "final"  # final: the test set; tune: the validation set

    @property
    def balanced(self) -> bool:
        """Whether every class has the same number of images, and at least one."""
        return not self.counts or (min(self.counts) == max(self.counts) > 0)

    @property
    def without(self) -> tuple[int, ...]:
        """Ids of classes without a scored image, which are left out of every mean."""
        return tuple(label for label, images in enumerate(self.counts) if images == 0)

    @property
    def words(self) -> tuple[str, ...]:
        """Names after ``generic/`` of the metrics over all classes, the headline first."""
        return ("accuracy",) if self.balanced else ("balanced", "accuracy")

    @property
    def columns(self) -> dict[str, str]:
        """Heading -> name after ``generic/``, for the table columns over all classes."""
        return {"all": "accuracy"} if self.balanced else {word: word for word in self.words}

    @property
    def headlines(self) -> dict[str, str]:
        """View -> the view's headline metric.

        Personal accuracy weights recalls by the client's own class mix, so an unbalanced test set
        does not distort this accuracy.
        """
        return {"generic": f"generic/{self.words[0]}", "personal": "personal/accuracy"}

    @property
    def name(self) -> str:
        """Name of the scored images: ``test set`` or ``validation set``."""
        return "validation set" if self.split == "tune" else "test set"

    def told(self, metrics: Mapping[str, Any]) -> list[str]:
        """Return the headlines in ``metrics`` as texts, such as ``generic 61.2 %``."""
        named = {view: (name, metrics.get(name)) for view, name in self.headlines.items()}
        known = {view: (name, value) for view, (name, value) in named.items() if value is not None}
        return [
            f"{view}{' balanced' if name.endswith('/balanced') else ''} {100 * value:z.1f} %"
            for view, (name, value) in known.items()
        ]

    def note(self, class_names: Sequence[str] = ()) -> str:
        """Return one line about an unbalanced set; "" for a balanced set.

        Args:
            class_names: (C,) names of the classes; empty: class ids are shown.
        """
        if self.balanced:
            return ""
        known = [images for images in self.counts if images]
        low, high = min(known), max(known)
        span = f"{low}" if low == high else f"{low} to {high}"
        line = f"{span} images a class"
        if self.without:
            names = [str(class_names[c]) if class_names else str(c) for c in self.without]
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            has, weighs = ("has", "weighs") if len(names) == 1 else ("have", "weigh")
            rest = f"{', '.join(names[:_NAMED])}{more}) and {weighs} nothing"
            line = f"{len(names)} of {len(self.counts)} classes {has} no image ({rest}"
            line += f", the other {'class has' if len(known) == 1 else 'classes have'} {span}"
        return (
            f"the {self.name} is not balanced: {line}; balanced is the mean recall over the "
            "classes with images and comes before accuracy"
        )

    @classmethod
    def of(cls, labels: IntArray, num_classes: int, split: str) -> ScoredSet:
        """Return the class counts of images with labels (M,); () where there is no image."""
        counts = np.bincount(labels, minlength=num_classes).tolist() if len(labels) else ()
        return cls(tuple(counts), split)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able dictionary; :meth:`from_json` is its inverse."""
        counts, without = list(self.counts), list(self.without)
        return {"balanced": self.balanced, "without": without, "counts": counts}

    @classmethod
    def from_json(cls, value: Mapping[str, Any], split: str) -> ScoredSet:
        """Return the set stored in a dictionary of :meth:`to_json`."""
        return cls(tuple(int(images) for images in value["counts"]), split)


def scored_set(result: Mapping[str, Any]) -> ScoredSet:
    """Return the class counts of the images behind a result's metrics.

    Args:
        result: Content of ``result.json``; without class counts, the set counts as balanced.
    """
    split = str(result.get("split", "final"))
    return ScoredSet.from_json(result.get(KEY) or {"counts": []}, split)


def scored_note(result: Mapping[str, Any]) -> str:
    """Return :meth:`ScoredSet.note` of a result, with the names of its classes."""
    return scored_set(result).note(result.get("class_names") or ())


def headlines(result: Mapping[str, Any]) -> dict[str, str]:
    """Return view -> headline metric, for the images that a result was scored on."""
    return scored_set(result).headlines


def mass_note(results: Sequence[Mapping[str, Any]], which: str) -> str:
    """Return one line on how classes without test images affect the personal view; "" if not.

    Args:
        results: Results of one setting, one per seed.
        which: Part of each result to read, such as ``final`` or ``last_k``.
    """
    parts = []
    is_own = any(result.get("local_test") == "own" for result in results)
    if lost := _mean_over_seeds(results, which, "personal/mass_lost"):
        images = "test images of its own" if is_own else "test images"
        parts.append(
            f"{100 * lost:.1f} % of a client's images, in the mean, are of classes without {images}"
            "; its other classes take their weight"
        )
    without = is_own or any(scored_set(result).without for result in results)
    if without and (left_out := _mean_over_seeds(results, which, "personal/excluded")):
        clients = "client" if left_out == 1 else "clients"
        images = "own test images of own classes" if is_own else "an image of a tested class"
        parts.append(f"{left_out:g} {clients} without {images} left out")
    return f"personal view: {'; '.join(parts)}" if parts else ""


def _mean_over_seeds(results: Sequence[Mapping[str, Any]], which: str, metric: str) -> float:
    """Return a metric's mean over the seeds; a run without the metric counts as 0."""
    found = [(result.get(which) or {}).get(metric) or 0.0 for result in results]
    return sum(found) / max(len(found), 1)
