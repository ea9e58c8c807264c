"""Classes in words, short enough for the axis of a picture and the first column of a table."""

from __future__ import annotations

from collections.abc import Sequence

from fedlt.errors import shortened

_LONG = 14  # most characters of a name
_MANY = 20  # most classes that are named without their numbers


def class_words(names: Sequence[str]) -> list[str]:
    """Return one text per class: its name, its number, or both.

    The name alone stands for a class if there are few classes and all names are short. A class
    whose name is its number is that number. Otherwise the number comes first, by which results and
    ``--shots`` know the class: ``3 black-throat...``.

    Args:
        names: (C,) names of the classes.
    """
    is_short = len(names) <= _MANY and all(len(name) <= _LONG for name in names)
    if is_short and not any(name.isdecimal() for name in names):
        return list(names)
    return [
        name if name == str(label) else f"{label} {shortened(name, _LONG)}"
        for label, name in enumerate(names)
    ]


def are_numbers(names: Sequence[str]) -> bool:
    """Return True if every class is named by its own number."""
    return list(names) == [str(label) for label in range(len(names))]
